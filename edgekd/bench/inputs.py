"""Values for the inputs of any model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.errors import BenchError
from edgekd.runtime.backends import Array, TensorInfo

_FLOATS = ("float16", "float32", "float64")
_BYTES = ("int8", "uint8")
_INDICES = ("int16", "int32", "int64", "uint16", "uint32", "uint64")
TYPES = (*_FLOATS, *_BYTES, *_INDICES, "bool", "str")
_SEED = 0


def check_types(inputs: Sequence[TensorInfo]) -> None:
    """Raises BenchError for an input that is no tensor, or one of a type that NumPy does not have."""
    for info in inputs:
        if info.dtype not in TYPES:
            raise BenchError(
                f"no values can be made for the type of the input {info.name!r}",
                found=info.dtype,
                allowed=f"tensors of {', '.join(TYPES)}",
            )


def random_input(shape: tuple[int, ...], dtype: str, *, stream: int = 0) -> Array:
    """Random values with a fixed seed, as described_values() describes them.

    Not zeros, on which some engines and processors are faster.

    Args:
        stream: other values for each number, e.g. for each input of a model.
    """
    generator = np.random.default_rng([_SEED, stream])
    if dtype in _FLOATS:
        return np.asarray(generator.standard_normal(shape, dtype=np.float32), dtype=dtype)
    if dtype in _BYTES:
        limits = np.iinfo(dtype)
        return np.asarray(generator.integers(limits.min, limits.max, shape, endpoint=True, dtype=dtype))
    if dtype in _INDICES and _is_count(shape):
        return np.ones(shape, dtype)
    if dtype == "str":
        return np.asarray(generator.integers(10, size=shape)).astype("str")
    return np.asarray(generator.integers(2, size=shape), dtype=dtype)


def described_values(shape: tuple[int, ...], dtype: str) -> str:
    """The values of random_input() in words, for the record."""
    if dtype in _FLOATS:
        return "random: normal, mean 0, standard deviation 1"
    if dtype in _BYTES:
        return f"random: uniform from {np.iinfo(dtype).min} to {np.iinfo(dtype).max}"
    if dtype in _INDICES and _is_count(shape):
        return "all 1"
    return "random: the digits 0 to 9 as text" if dtype == "str" else "random: 0 or 1"


def _is_count(shape: tuple[int, ...]) -> bool:
    """Whether integers of this shape are likely lengths or counts, of which 0 would leave nothing to compute."""
    return len(shape) < 2
