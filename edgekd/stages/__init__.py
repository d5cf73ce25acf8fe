"""The chain's stages, one file per stage.

A stage's file exports `STAGE`, an edgekd.runs.Stage (its name and version, its title and facts for the report and the
terminal, its check for the preflight), and plain functions over a Run, from artifacts to one artifact. pipeline.py
calls these functions, and schemes compose them.
"""
