"""Structured pruning: the least important channels are removed, to a target in MACs, parameters, latency or size."""
