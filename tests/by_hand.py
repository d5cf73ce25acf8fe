"""Random features and formulas in double precision, written out, by which the tests check losses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(z: np.ndarray) -> np.ndarray:
    """Of each row, or of one row."""
    powers = np.exp(z)
    return powers / powers.sum(-1, keepdims=True)


def slopes(function: Callable[[np.ndarray], float], z: np.ndarray) -> np.ndarray:
    """The gradient of a function at z, by central differences."""
    found = np.zeros_like(z)
    for place in np.ndindex(*z.shape):
        step = np.zeros_like(z)
        step[place] = 1e-5
        found[place] = (function(z + step) - function(z - step)) / 2e-5
    return found


def smooth_l1(a: float, b: float) -> float:
    return 0.5 * (a - b) ** 2 if abs(a - b) < 1 else abs(a - b) - 0.5


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = math.sqrt(a @ a) * math.sqrt(b @ b)
    return a @ b / lengths if lengths else 0.0


def angle_loss(student: np.ndarray, teacher: np.ndarray) -> float:
    """The part of the relational loss on angles, with all triplets of samples."""
    triplets = list(itertools.product(range(len(student)), repeat=3))
    cosines = ([cosine(f[j] - f[i], f[k] - f[i]) for i, j, k in triplets] for f in (student, teacher))
    return sum(map(smooth_l1, *cosines)) / len(triplets)
