"""Subnormal weights: values so small that many CPUs compute with them many times slower than with others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.bench.measurement import Measurement, SubnormalWeights
from edgekd.bench.onnx_tensors import StoredTensor, mapped
from edgekd.wording import counted

_FLOAT, _DOUBLE, _BFLOAT16 = 1, 11, 16
# By type: as unsigned integers, the bits of the largest subnormal number, and the bit of the sign. float16 is left out:
# a CPU computes it in float32, where its subnormal numbers are normal ones.
_BITS: dict[int, tuple[str, int, int]] = {
    _FLOAT: ("<u4", (1 << 23) - 1, 1 << 31),
    _DOUBLE: ("<u8", (1 << 52) - 1, 1 << 63),
    _BFLOAT16: ("<u2", (1 << 7) - 1, 1 << 15),
}
# float_data and double_data hold these types as they are; int32_data holds bfloat16 as numbers of varying length.
_TYPED = {_FLOAT: 4, _DOUBLE: 10}
# A tensor counts from this share on; single values cost nothing that could be measured.
_SHARE, _LEAST = 0.01, 32
_CHUNK = 1 << 22
_NAMED = 3


def subnormal_weights(tensors: list[StoredTensor], folder: Path) -> tuple[SubnormalWeights, ...]:
    """The tensors of which a notable share is subnormal: at least 1 %, and 32 values. The most affected comes first.

    Args:
        tensors: of a graph.
        folder: the graph's, where the files with its weights lie.
    """
    found = []
    for tensor in tensors:
        values = _values(tensor, folder)
        count = sum(_count(chunk, tensor.type) for chunk in _chunks(values))
        if count >= max(_LEAST, _SHARE * len(values)):
            found.append(SubnormalWeights(tensor=tensor.name or "a constant", subnormal=count, values=len(values)))
    return tuple(sorted(found, key=lambda each: -each.subnormal))


def subnormal_warning(measured: Measurement, name: str) -> str | None:
    """What slows a model down that a CPU runs, and what to do; None where no tensor is affected.

    Args:
        measured: the record of its benchmark.
        name: of the model, for the message.
    """
    tensors = measured.file.subnormal_weights
    if not tensors or measured.runs_on != "cpu":
        return None
    named = ", ".join(f"{each.subnormal:,} of {each.values:,} in {each.tensor}" for each in tensors[:_NAMED])
    more = f" and in {counted(len(tensors) - _NAMED, 'more tensor')}" if len(tensors) > _NAMED else ""
    return (
        f"{name} has subnormal weights ({named}{more}): some CPUs compute with values this close to 0 many times "
        "slower. Set them to 0 before the export, e.g. weight[weight.abs() < 1.2e-38] = 0."
    )


def _values(tensor: StoredTensor, folder: Path) -> npt.NDArray[Any]:
    """The bits of a tensor's values; empty for a type that is not looked at, or where the values are not whole."""
    if tensor.type not in _BITS:
        return np.empty(0, np.uint8)
    dtype = _BITS[tensor.type][0]
    stored: Any = tensor.raw if tensor.raw is not None else tensor.typed.get(_TYPED.get(tensor.type, 0), b"")
    if tensor.external:
        stored = _external(tensor, folder)
    whole = len(stored) // np.dtype(dtype).itemsize
    return np.frombuffer(stored, dtype, whole) if whole else np.empty(0, dtype)


def _external(tensor: StoredTensor, folder: Path) -> Any:
    """The bytes of a tensor in another file; none where its place is not in the file, which the engine reports."""
    try:
        offset, length = (int(tensor.external.get(key, -1)) for key in ("offset", "length"))
    except ValueError:
        return b""
    file = folder / tensor.external.get("location", "")
    size, start = file.stat().st_size, max(offset, 0)
    stop = size if length < 0 else start + length
    if not start < stop <= size:
        return b""
    return mapped(file)[start:stop]


def _chunks(values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Parts of a large array, so that no copy of all of it is made."""
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))


def _count(bits: npt.NDArray[Any], kind: int) -> int:
    _, largest, sign = _BITS[kind]
    magnitude = bits & bits.dtype.type(sign - 1)
    return int(np.count_nonzero((magnitude > 0) & (magnitude <= largest)))
