"""Benchmarks on the device: latency, memory and load time of exported files, as complete records."""
