"""Structured pruning: narrower layers, chosen by magnitude, to a target in MACs or parameters."""
