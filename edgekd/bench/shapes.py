"""The shapes of any model's inputs: which dimension is the batch, and which have to be given."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgekd.bench.inputs import check_types
from edgekd.errors import BenchError, UnknownNameError, UsageError
from edgekd.runtime.backends import TensorInfo, fits

# The key of a shape that is given without a name, for a model with one input.
ONLY = ""

# What the engines' sessions call a first dimension that has no name in the graph; see edgekd.runtime.backends.
_NAMELESS = "dim0"
# What exporters write for a dimension of which they know nothing: "?", "-1", "None"; and names that PyTorch
# (dynamic_axes without names), tf2onnx and Paddle2ONNX count up, another one for every dimension.
_NO_NAME = re.compile(r"[^A-Za-z]*|[Nn]one|[Uu]nknown|.*_dynamic_axes_\d+|unk__\d+|(p2o\.)?DynamicDimension\.\d+")
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
    if inputs and all(0 in info.shape for info in inputs):
        raise BenchError(
            "the model takes empty inputs only",
            found=", ".join(f"{info.name} {shown(info.shape)}" for info in inputs),
            hint="export it again with the sizes that it has, or with dynamic dimensions",
        )
    missing = [info for info in inputs if None in sizes.known(info)]
    if missing:
        raise _dynamic_dimensions(missing, sizes, several=len(inputs) > 1)
    return Plan(size, {info.name: sizes.shape(info) for info in inputs})


def shown(shape: Sequence[int | str]) -> str:
    """As NumPy writes a shape, with the names of dynamic dimensions."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


@dataclass
class _Sizes:
    """The sizes of dynamic dimensions as far as they are known.

    Attributes:
        sizes: by the dimension's name.
        source: the input whose shape they come from.
        first: of inputs whose first dimension has no name, as their shape was given. It may be the batch or not.
        unranked: the given shapes of inputs without dimensions, which also those have of which the graph tells none.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    unranked: dict[str, Shape] = field(default_factory=dict)

    def set(self, key: str, size: int, source: str) -> None:
        if key == _NAMELESS:
            self.first[source] = size
        elif self.sizes.setdefault(key, size) != size:
            raise UsageError(
                f"the dimension {key!r} has two sizes",
                found=f"{self.sizes[key]} in {self.source[key]!r}, {size} in {source!r}",
                allowed="one: the graph gives equal dimensions one name",
            )
        self.source.setdefault(key, source)

    def batch(self, name: str, asked: int | None) -> int:
        """Settle the batch size: what was asked for, what shapes begin with, or 1."""
        given = list(self.first.values()) if name == _NAMELESS else [self.sizes[name]] if name in self.sizes else []
        if asked is not None and given and not {1, asked} & set(given):
            raise UsageError(
                "the input shape begins with another batch size than the requested one",
                found=f"{given[0]}, requested {asked}",
                hint="begin it with 1, and set the batch size with --batch",
            )
        size = asked or next(iter(given), 1)
        self.sizes[name] = size
        # Shapes that begin with 1 stand for any batch.
        self.first = {source: size if asked and first == 1 else first for source, first in self.first.items()}
        return size

    def known(self, info: TensorInfo) -> list[int | None]:
        """The input's dimensions; None where one is not known."""
        keys = [_key(info, axis) for axis in range(len(info.shape))]
        sizes = [key if isinstance(key, int) else self.sizes.get(key) for key in keys]
        return [self.first[info.name], *sizes[1:]] if info.name in self.first else sizes

    def shape(self, info: TensorInfo) -> Shape:
        return self.unranked.get(info.name, tuple(size for size in self.known(info) if size is not None))


def _key(info: TensorInfo, axis: int) -> int | str:
    """A fixed dimension's size, or the name under which a dynamic one is known.

    A dimension without a name is called after its axis by the engines' sessions: it is the batch if it is the first and
    no shape has another size there, else it has nothing to do with the same axis of other inputs.
    """
    size = info.shape[axis]
    if isinstance(size, int) or not (size == f"dim{axis}" or _NO_NAME.fullmatch(size)):
        return size
    return f"{size} {axis} of {info.name}" if axis else _NAMELESS


def _batch_name(inputs: Sequence[TensorInfo], *, chosen: bool) -> str | None:
    """The name of the dynamic dimension that is the batch; None where no input begins with one.

    A single dynamic dimension may as well be the length of a signal: it is the batch where it is called so, where an
    input with more dimensions begins with it, or where a batch size was asked for.
    """
    names: list[str] = []
    for info in inputs:
        first = _key(info, 0) if info.shape else None
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
    if not info.shape:
        sizes.unranked[info.name] = tuple(shape)
        return
    for axis, size in enumerate(shape):
        key = _key(info, axis)
        if isinstance(key, str):
            sizes.set(key, size, info.name)


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
