"""Which layers of a network can be tapped, and which of them to compare by default; see edgekd.distillation.taps."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from edgekd.distillation.taps import INPUT, PROBE_BATCH, Kind, Shape, feature_shape, modules_of, untappable
from edgekd.errors import ModelError, UsageError, nearest
from edgekd.models.onnx_network import OnnxNetwork
from edgekd.runtime.preprocess import InputShape


@dataclass(frozen=True)
class Layer:
    """A module that can be tapped; the shape is (C, H, W) or (C,), without the batch."""

    path: str
    shape: Shape


class Probe:
    """The shapes of a network's features, from one forward pass of zeros that leaves the network unchanged.

    Args:
        network: the network to probe.
        shape: of the input.
        whose: what messages call the network.

    Raises:
        ModelError: the network cannot take images of this size.
    """

    def __init__(self, network: nn.Module, shape: InputShape, *, whose: str = "network") -> None:
        self.whose = whose
        self._shape_of_input = shape
        self._modules = modules_of(network)
        self._traced = isinstance(network, fx.GraphModule)
        self._runs = _run(network, shape, whose)
        self._logits = self._runs.pop(network).output

    @property
    def layers(self) -> list[Layer]:
        """Every module that can be tapped, in the order of execution; one that runs several times at its last run."""
        return [Layer(run.path, run.output) for run in self._runs.values() if not isinstance(run.output, str)]

    def shapes(self, paths: Sequence[str]) -> dict[str, Shape]:
        """The shape of each feature, without the batch.

        Raises:
            UsageError: the network has no such module; the message has the nearest ones.
            ModelError: what the path gives is neither a map nor a vector.
        """
        return {path: self._shape(path) for path in paths}

    def choose(self, kind: Kind) -> tuple[str, ...]:
        """The paths of the layers of one kind.

        Args:
            kind: stages: the last map of each resolution, from the largest; maps: those of them with more than one
                position; last, middle: one of the stages; embedding: the input of the classifier.

        Raises:
            ModelError: the network has no such features.
        """
        if kind == "embedding":
            return (self._embedding(),)
        return _pick(self._wide() if kind == "maps" else self._stages(), kind)

    @property
    def classifier(self) -> str:
        """The path of the last layer. Raises ModelError if no layer gives one number per class."""
        return self._head().path

    def _shape(self, path: str) -> Shape:
        name = path.removesuffix(INPUT)
        if name not in self._modules:
            hint = f"did you mean {near!r}?" if (near := nearest(name, self._modules)) else None
            raise UsageError(f"the {self.whose} has no module {name!r}", allowed=self._near(name), hint=hint)
        run = self._runs.get(self._modules[name])
        shape = "nothing: it does not run in this network" if run is None else run.input if name != path else run.output
        if isinstance(shape, str):
            raise untappable(self.whose, path, shape, hint=f"choose a layer, {self._near(name)}")
        return shape

    def _near(self, name: str) -> str:
        shapes = {layer.path: layer.shape for layer in self.layers}
        near = difflib.get_close_matches(name, shapes, n=4, cutoff=0.0)
        shown = ", ".join(f"{path} ({'x'.join(map(str, shapes[path]))})" for path in near)
        return f"e.g., with shapes at {self._shape_of_input} pixels: {shown}"

    def _embedding(self) -> str:
        """Before a dropout, which would set values of the student's to 0 and none of the teacher's."""
        head = self._head()
        order = list(self._runs.values())
        before = order[order.index(head) - 1]
        dropout = before.module if isinstance(before.module, nn.modules.dropout._DropoutNd) else None
        holes = dropout is not None and dropout.p > 0 and before.output == head.input
        return (before if holes else head).path + INPUT

    def _head(self) -> _Run:
        head = self._classifier()
        if head is None or isinstance(head.input, str):
            raise ModelError(f"the {self.whose} has no embedding", found="no layer gives one number per class")
        return head

    def _classifier(self) -> _Run | None:
        """The last layer that gives one number per class: of the linear ones, else of the convolutions (SqueezeNet)."""
        able = [run for run in self._runs.values() if run.output[:1] == self._logits]
        linear = [run for run in able if isinstance(run.module, nn.Linear)]
        return next(reversed(linear or [run for run in able if isinstance(run.module, nn.Conv2d)]), None)

    def _stages(self) -> tuple[str, ...]:
        if self._traced:
            raise ModelError(
                f"the {self.whose} is traced: its stages are not known", hint="name paths, or use embedding"
            )
        head = self._classifier()
        stages: list[_Run] = []
        for run in self._main_path("", head):
            height, before = (
                _height(run.output),
                _height(stages[-1].output) if stages else max(self._shape_of_input[1:]),
            )
            if run is head or run.pools or _height(run.input) == 1 < before:
                break
            if not stages or _halved(before, height):
                stages.append(run)
            elif not _halved(height, before):
                # Convolutions without padding remove a border pixel, which does not start a new stage. Larger maps are
                # for a head.
                stages[-1] = run
        self._refuse_shallow(stages[-1] if stages else None)
        return tuple(run.path for run in stages)

    def _wide(self) -> tuple[str, ...]:
        shapes = self.shapes(self._stages())
        return tuple(path for path, shape in shapes.items() if _height(shape) > 1)

    def _main_path(self, container: str, head: _Run | None) -> Iterator[_Run]:
        """The modules that the feature maps pass through, in order.

        A module's children are listed too if it reduces the resolution in several steps, or if the maps end inside it.
        Other modules are blocks and stages, whose inner maps are temporarily wider or narrower, or in one of two
        branches.
        """
        for run in self._runs.values():
            if self._parent(run.path) != container or run.passes or not _is_map(run.input):
                continue
            inside = [inner for inner in self._runs.values() if inner.path.startswith(f"{run.path}.")]
            if not _is_map(run.output) or head in inside or _has_steps(run, inside):
                yield from self._main_path(run.path, head)
            if _is_map(run.output):
                yield run

    def _parent(self, path: str) -> str:
        """The nearest module around it that runs itself: a ModuleList does not."""
        while path := path.rpartition(".")[0]:
            if self._modules[path] in self._runs:
                break
        return path

    def _refuse_shallow(self, last: _Run | None) -> None:
        """Refuse a network whose maps end early: a vision transformer's only map is its patches."""
        order = list(self._runs.values())
        depth = order.index(last) if last else -1
        rest = [run for run in order[depth + 1 :] if isinstance(run.output, str)]
        if last is None or len(rest) > depth:
            found = f"{rest[-1].path} gives {rest[-1].output}" if rest else "no maps at all"
            raise ModelError(f"the {self.whose} has no stages of maps (B, C, H, W)", found=found, hint="use embedding")


def pair(student: Probe, teacher: Probe, kind: Kind) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Equally many paths of both networks. Stages are matched from the deepest backwards.

    Args:
        student, teacher: the probed networks.
        kind: see Probe.choose(); middle is that of the matched stages.

    Returns:
        The student's paths and the teacher's.

    Raises:
        ModelError: one of them has no such features.
    """
    if kind == "embedding":
        return student.choose(kind), teacher.choose(kind)
    wanted: Kind = "maps" if kind == "maps" else "stages"
    ours, theirs = student.choose(wanted), teacher.choose(wanted)
    count = min(len(ours), len(theirs))
    return _pick(ours[-count:], kind), _pick(theirs[-count:], kind)


@dataclass(frozen=True)
class _Run:
    """A module's last run: its first input and its output, as shapes, or in words where they are no features."""

    path: str
    module: nn.Module
    input: Shape | str
    output: Shape | str
    passes: bool

    @property
    def pools(self) -> bool:
        """Whether it is the global pooling; a max-pool may reach one pixel where images are small."""
        if _height(self.output) != 1 or next(self.module.parameters(), None) is not None:
            return False
        shrinks = _height(self.input) > 1 and not isinstance(self.module, nn.MaxPool2d)
        return shrinks or "Adaptive" in type(self.module).__name__


def _run(network: nn.Module, shape: InputShape, whose: str) -> dict[nn.Module, _Run]:
    if isinstance(network, OnnxNetwork):
        raise ModelError(
            f"the {whose} is an ONNX file, which gives logits only, and this loss compares layers",
            hint="use losses on logits, or a network of PyTorch's",
        )
    runs: dict[nn.Module, _Run] = {}

    def watch(path: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            first = inputs[0] if inputs else None
            passes = output is first and not getattr(module, "inplace", False)
            runs.pop(module, None)
            runs[module] = _Run(path, module, feature_shape(first), feature_shape(output), passes)

        return hook

    modes = {module: module.training for module in network.modules()}
    hooks = [module.register_forward_hook(watch(path)) for path, module in network.named_modules()]
    try:
        with torch.no_grad():
            device = next(network.parameters()).device
            network.eval()(torch.zeros(PROBE_BATCH, *shape, device=device))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ModelError(f"the {whose} cannot take images of {shape} pixels", found=error) from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return runs


def _pick(stages: tuple[str, ...], kind: Kind) -> tuple[str, ...]:
    if kind in ("stages", "maps"):
        return stages
    return stages[-1:] if kind == "last" else (stages[(len(stages) - 1) // 2],)


def _is_map(shape: Shape | str) -> bool:
    return not isinstance(shape, str) and len(shape) == 3


def _height(shape: Shape | str) -> int:
    return int(max(shape[1:]))


def _halved(before: int, after: int) -> bool:
    """A step in resolution; odd sizes round up, 3 to 2."""
    return 3 * after <= 2 * before


def _has_steps(run: _Run, inside: Sequence[_Run]) -> bool:
    before, after = _height(run.input), _height(run.output)
    heights = [_height(inner.output) for inner in inside if _is_map(inner.output)]
    return any(_halved(before, height) and _halved(height, after) for height in heights)
