"""The input of any model: its shape, and random values for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.errors import BenchError
from edgekd.runtime.backends import Array, TensorInfo

_FLOATS = ("float16", "float32", "float64")
_SEED = 0


def plan_input(
    inputs: Sequence[TensorInfo], batch_sizes: Sequence[int], input_shape: Sequence[int] | None
) -> tuple[TensorInfo, tuple[int, ...]]:
    """The model's only input, and its shape without the batch dimension.

    Args:
        inputs: of the model.
        batch_sizes: all that will be measured.
        input_shape: with the batch dimension; required where other dimensions are dynamic.

    Raises:
        BenchError: not exactly one input, a type without random values, no batch dimension, a fixed batch of another
            size, or a shape that is missing or does not fit.
    """
    if len(inputs) != 1:
        named = ", ".join(f"{info.name} {_shown(info.shape)}" for info in inputs)
        raise BenchError("only models with exactly one input can be measured", found=named or "no input")
    info = inputs[0]
    if info.dtype not in (*_FLOATS, "uint8"):
        raise BenchError(
            f"random values cannot be generated for the type of the input {info.name!r}",
            found=info.dtype,
            allowed=", ".join((*_FLOATS, "uint8")),
        )
    if len(info.shape) < 2:
        raise BenchError(
            f"the input {info.name!r} has no batch dimension",
            found=f"shape {_shown(info.shape)}",
            allowed="a batch dimension and at least one more",
        )
    _check_batches(info, batch_sizes)
    return info, _sample_shape(info, input_shape)


def fixed_batch(inputs: Sequence[TensorInfo]) -> int | None:
    """The batch size of a model that takes no other; None where it is dynamic."""
    first = inputs[0].shape[0] if inputs and inputs[0].shape else None
    return first if isinstance(first, int) else None


def random_input(shape: tuple[int, ...], dtype: str) -> Array:
    """Random values with a fixed seed: normally distributed, for uint8 uniform.

    Not zeros, on which some engines and processors are faster.
    """
    generator = np.random.default_rng(_SEED)
    if dtype == "uint8":
        return generator.integers(0, 256, shape, dtype=np.uint8)
    return generator.standard_normal(shape, dtype=np.float32).astype(dtype, copy=False)


def _check_batches(info: TensorInfo, batch_sizes: Sequence[int]) -> None:
    fixed = info.shape[0]
    if isinstance(fixed, int) and any(size != fixed for size in batch_sizes):
        raise BenchError(
            f"the model's batch size is fixed at {fixed}",
            found=f"requested {', '.join(map(str, batch_sizes))}",
            hint=f"request only {fixed} (--batch {fixed}), or export the model with a dynamic batch",
        )


def _sample_shape(info: TensorInfo, input_shape: Sequence[int] | None) -> tuple[int, ...]:
    wanted = info.shape[1:]
    if input_shape is None:
        fixed = tuple(size for size in wanted if isinstance(size, int))
        if len(fixed) < len(wanted):
            raise BenchError(
                f"the input {info.name!r} has dynamic dimensions besides the batch",
                found=f"shape {_shown(info.shape)}",
                hint="set all dimensions, e.g. --input-shape 1x3x224x224 (Python: input_shape=(1, 3, 224, 224))",
            )
        return fixed
    given = tuple(input_shape[1:])
    fits = len(given) == len(wanted) and all(
        not isinstance(size, int) or size == found for size, found in zip(wanted, given, strict=True)
    )
    if not fits:
        raise BenchError(
            f"the input shape does not fit {info.name!r}", found=_shown(input_shape), allowed=_shown(info.shape)
        )
    return given


def _shown(shape: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, shape))})"
