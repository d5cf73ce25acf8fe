"""The inputs of any model: their shapes, and random values for them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgekd.errors import BenchError, UnknownNameError, UsageError
from edgekd.runtime.backends import Array, TensorInfo

# The key of a shape that is given without a name, for a model with one input.
ONLY = ""

_FLOATS = ("float16", "float32", "float64")
_BYTES = ("int8", "uint8")
_INDICES = ("int16", "int32", "int64", "uint16", "uint32", "uint64")
TYPES = (*_FLOATS, *_BYTES, *_INDICES, "bool", "str")
_SEED = 0
# Where a fixed first dimension may be the batch: tables, images and videos. With three dimensions it is as likely the
# channels of an image without a batch.
_RANKS_WITH_BATCH = (2, 4, 5)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The shape of each input, by name in the model's order, and how many samples they are."""

    batch: int
    shapes: Mapping[str, Shape]


def plan_inputs(
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    *,
    batch: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Plan:
    """The shapes to measure a model with.

    The batch is the first dimension: where it is dynamic, or where all inputs of 2, 4 or 5 dimensions and the first
    output begin with the same number. A model without one takes one sample per call. Dynamic dimensions of the same
    name are equal in all inputs.

    Args:
        inputs, outputs: of the model.
        batch: the batch size; None: as `shapes` have it, the model's own where it is fixed, else 1.
        shapes: whole shapes by the input's name, or under ONLY; required where dimensions besides the batch are
            dynamic. Their batch dimension is 1 or `batch`.

    Raises:
        BenchError: a type of which no values can be made, a batch size that the model does not take, or a shape that is
            missing or does not fit.
        UsageError: shapes that contradict each other or `batch`, or of an input that the model does not have.
    """
    check_types(inputs)
    given = _by_name(inputs, shapes or {})
    name = _batch_name(inputs, chosen=batch is not None)
    sizes = _Sizes()
    for info in inputs:
        if info.name in given:
            _learn(sizes, info, given[info.name])
    size = sizes.batch(name, batch) if name is not None else _fixed_batch(inputs, outputs, batch)
    missing = [info for info in inputs if not all(sizes.known(info))]
    if missing:
        raise _dynamic_dimensions(missing, sizes, several=len(inputs) > 1)
    return Plan(size, {info.name: sizes.shape(info) for info in inputs})


def check_types(inputs: Sequence[TensorInfo]) -> None:
    """Raises BenchError for an input that is no tensor, or one of a type that NumPy does not have."""
    for info in inputs:
        if info.dtype not in TYPES:
            raise BenchError(
                f"no values can be made for the type of the input {info.name!r}",
                found=info.dtype,
                allowed=f"tensors of {', '.join(TYPES)}",
            )


def random_input(shape: Shape, dtype: str, *, stream: int = 0) -> Array:
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


def described_values(shape: Shape, dtype: str) -> str:
    """The values of random_input() in words, for the record."""
    if dtype in _FLOATS:
        return "random: normal, mean 0, standard deviation 1"
    if dtype in _BYTES:
        return f"random: uniform from {np.iinfo(dtype).min} to {np.iinfo(dtype).max}"
    if dtype in _INDICES and _is_count(shape):
        return "1"
    return "random: the digits 0 to 9 as text" if dtype == "str" else "random: 0 or 1"


def shown(shape: Sequence[int | str]) -> str:
    """As NumPy writes a shape, with the names of dynamic dimensions."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _is_count(shape: Shape) -> bool:
    """Whether integers of this shape are likely lengths or counts, of which 0 would leave nothing to compute."""
    return len(shape) < 2


@dataclass
class _Sizes:
    """The sizes of dynamic dimensions as far as they are known, and which input's shape they come from."""

    sizes: dict[str, int] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)

    def set(self, key: str, size: int, source: str) -> None:
        if self.sizes.setdefault(key, size) != size:
            raise UsageError(
                f"the dimension {key!r} is the same in several inputs, but not in their shapes",
                found=f"{self.sizes[key]} in {self.source[key]!r}, {size} in {source!r}",
            )
        self.source.setdefault(key, source)

    def batch(self, name: str, asked: int | None) -> int:
        """Settle the batch size: what was asked for, what shapes begin with, or 1."""
        found = self.sizes.get(name)
        if asked is not None and found not in (None, 1, asked):
            raise UsageError(
                "the input shape begins with another batch size than the requested one",
                found=f"{found}, requested {asked}",
                hint="begin it with 1, and set the batch size with --batch",
            )
        self.sizes[name] = asked or found or 1
        return self.sizes[name]

    def known(self, info: TensorInfo) -> list[int | None]:
        """The input's dimensions; None where one is not known."""
        keys = [_key(info, axis) for axis in range(len(info.shape))]
        return [key if isinstance(key, int) else self.sizes.get(key) for key in keys]

    def shape(self, info: TensorInfo) -> Shape:
        return tuple(size for size in self.known(info) if size is not None)


def _key(info: TensorInfo, axis: int) -> int | str:
    """A fixed dimension's size, or the name under which a dynamic one is known.

    A dimension without a name is called after its axis by the engines' sessions: it is the batch if it is the first,
    else it has nothing to do with the same axis of other inputs.
    """
    size = info.shape[axis]
    return f"{size} of {info.name}" if size == f"dim{axis}" and axis else size


def _batch_name(inputs: Sequence[TensorInfo], *, chosen: bool) -> str | None:
    """The name of the dynamic dimension that is the batch; None where no input begins with one.

    A single dynamic dimension may as well be the length of a signal: it is the batch where it is called so, where an
    input with more dimensions begins with it, or where a batch size was asked for.
    """
    names: list[str] = []
    for info in inputs:
        first = info.shape[0] if info.shape else None
        if isinstance(first, str) and (chosen or len(info.shape) > 1 or "batch" in first.lower()):
            names.append(first)
    return next((name for name in names if "batch" in name.lower()), names[0] if names else None)


def _fixed_batch(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], asked: int | None) -> int:
    firsts = {info.shape[0] for info in inputs if len(info.shape) in _RANKS_WITH_BATCH}
    if asked is not None and {info.shape[0] for info in inputs if info.shape} == {asked}:
        return asked
    answers = outputs[0].shape[:1] if outputs else ()
    (size,) = firsts if len(firsts) == 1 else (None,)
    own = size if isinstance(size, int) and size > 0 and answers == (size,) else None
    if asked in (None, own):
        return own or 1
    if asked == 1 and own is None:
        return 1
    found = ", ".join(f"{info.name} {shown(info.shape)}" for info in inputs) or "no input"
    if own is None:
        raise BenchError(
            "the model has no batch dimension",
            found=f"{found}, requested batch {asked}",
            hint="leave the batch size out, or export the model with a dynamic batch",
        )
    raise BenchError(
        f"the model's batch size is fixed at {own}",
        found=f"requested {asked}",
        hint=f"request only {own} (--batch {own}), or export the model with a dynamic batch",
    )


def _by_name(inputs: Sequence[TensorInfo], shapes: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    names = [info.name for info in inputs]
    given: dict[str, Shape] = {}
    for name, shape in shapes.items():
        if name == ONLY and len(names) != 1:
            raise UsageError(
                f"a shape without a name, but the model has {len(names)} inputs",
                found="x".join(map(str, shape)),
                allowed=", ".join(f"{info.name} {shown(info.shape)}" for info in inputs) or None,
                hint=f"--input-shape {names[0]}={'x'.join(map(str, shape))}" if names else "leave the shape out",
            )
        if name not in (*names, ONLY):
            raise UnknownNameError("input of the model", name, names)
        given[name or names[0]] = tuple(shape)
    return given


def _learn(sizes: _Sizes, info: TensorInfo, shape: Shape) -> None:
    if not fits(shape, info.shape):
        raise BenchError(f"the input shape does not fit {info.name!r}", found=shown(shape), allowed=shown(info.shape))
    for axis, size in enumerate(shape):
        key = _key(info, axis)
        if isinstance(key, str):
            sizes.set(key, size, info.name)


def fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    """Whether a shape has a model's fixed dimensions; its dynamic ones take any size."""
    return len(shape) == len(wanted) and all(
        not isinstance(size, int) or size == found for size, found in zip(wanted, shape, strict=True)
    )


def _dynamic_dimensions(missing: Sequence[TensorInfo], sizes: _Sizes, *, several: bool) -> BenchError:
    def example(info: TensorInfo) -> Shape:
        usual = 224 if len(info.shape) == 4 else 128
        return tuple(size or usual for size in sizes.known(info))

    examples = {info.name: example(info) for info in missing}
    options = " ".join(
        "--input-shape " + shlex.quote(f"{name + '=' if several else ''}{'x'.join(map(str, shape))}")
        for name, shape in examples.items()
    )
    python = str(examples if several else examples[missing[0].name])
    alone = any(len(info.shape) == 1 for info in missing)
    return BenchError(
        f"{_named(missing)} dynamic dimensions besides the batch",
        found=", ".join(f"{info.name} {shown(info.shape)}" for info in missing),
        hint=f"set them, e.g. {options} (Python: input_shape={python})"
        f"{', or --batch 1 if the only dimension is the batch' if alone else ''}; or give a file with --input",
    )


def _named(missing: Sequence[TensorInfo]) -> str:
    names = ", ".join(repr(info.name) for info in missing)
    return f"the input {names} has" if len(missing) == 1 else f"the inputs {names} have"
