"""Symmetric int8 as part of the network: quantizers that are trained, saved and exported (as Q/DQ) with it.

quantizers   one scale per tensor for activations, one per output channel for weights
operations   what each operation of a graph does to the values
fold         folds batch norms into the convolutions before them
equalize     rescales channels between layers, so that those of a tensor have similar ranges
placement    which values are quantized: `insert` (or `folded`, then `place`), `observe`, `freeze`, `grids`
"""
