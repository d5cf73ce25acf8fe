"""Structured pruning: channels removed by magnitude, to a target in MACs or parameters."""
