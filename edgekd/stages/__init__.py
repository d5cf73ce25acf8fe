"""The chain's stages, a file each: what it does, what it is keyed by, and what it declares for others.

A stage's file has `STAGE`, an edgekd.runs.Stage (its title, its facts for the report and the terminal, its check for
the preflight), and plain functions over a Run from artifacts to one artifact. pipeline.py calls them; schemes compose
them.
"""
