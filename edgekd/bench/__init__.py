"""Measuring on the device: latency, memory and load time of exported files, as records that can be trusted later."""
