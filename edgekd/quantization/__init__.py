"""Symmetric int8 as a part of the network: quantizers that train with it, travel in its checkpoint, and export as Q/DQ.

quantizers   one grid each: per tensor for activations, per output channel for weights
operations   what each operation of a graph does to its values
fold         batch norms into the convolutions that feed them
placement    which values are quantized: `insert`, `observe`, `freeze`, `grids`
"""
