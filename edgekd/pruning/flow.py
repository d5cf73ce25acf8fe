"""Which channels of which layers belong together: a label for every channel flows through the network's own operators.

The network runs once on one image. Beside every tensor goes one of labels, of the same shape, which names the channel
that each element belongs to. Operators that only move values (views, permutations, concatenations, slices) are applied
to the labels as they are, so a channel shuffle, a split or a padded shortcut needs no rule of its own; operators that
combine tensors element by element declare the labels that meet to be one channel; convolutions and linear layers end
channels and begin new ones. Works on what PyTorch executes, so any control flow of the network's code is followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from edgekd.runtime.preprocess import InputShape

Labels = npt.NDArray[np.int64]

# An element that is the same whatever the channels are: padding, a constant.
CONSTANT = -1

_aten = torch.ops.aten
# Element by element, though PyTorch does not tag them so.
_UNTAGGED = {"hardswish"}
_MOVES = {
    *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "slice", "select", "split", "split_with_sizes"),
    *("cat", "stack", "expand", "squeeze", "unsqueeze", "unbind", "flip", "roll", "repeat", "index_select", "narrow"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle"),
}
_KEEPS = {"clone", "alias", "detach", "_to_copy", "contiguous", "lift_fresh", "dropout"}
_POOLS = {"max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d"}
_RESIZES = {"upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"}
_REDUCES = {"mean", "sum", "amax", "amin"}


@dataclass(frozen=True)
class Site:
    """A dimension of a parameter or buffer whose positions belong to channels."""

    tensor: str
    dim: int


@dataclass(frozen=True)
class Flow:
    """The channels of a network.

    Attributes:
        sites: the channel of every position at each site, CONSTANT where it belongs to none.
        kept: the channels that cannot be removed: the input's, the output's, and those that meet an operator which is
            not known to treat channels apart.
        tied: channels that only work when they are removed in proportion, since their tensor is cut into parts.
        unknown: the operators that channels were kept for, e.g. "aten::_softmax".
        outputs: the shapes of the outputs for one image.
        positions: by the name of each convolution's or linear layer's weight, how often it is applied to an image: at
            how many pixels. A weight of n elements costs n multiply-accumulates each time.
        logits: those of the kept channels that the outputs consist of.
    """

    sites: Mapping[Site, Labels]
    kept: frozenset[int]
    tied: tuple[frozenset[int], ...]
    unknown: tuple[str, ...]
    outputs: tuple[tuple[int, ...], ...]
    positions: Mapping[str, int]
    logits: frozenset[int] = frozenset()


def trace(model: nn.Module, shape: InputShape) -> Flow:
    """Follow the channels of a network.

    Args:
        model: takes images (1, *shape); in evaluation mode, on the CPU.
        shape: of the input.

    Returns:
        Its channels.

    Raises:
        Exception: whatever the network's own code raises.
    """
    names = {id(tensor): name for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    recorder = _Recorder(names)
    image = torch.zeros(1, *shape)
    recorder.begin(image, [recorder.fresh() for _ in range(shape[0])], dim=1, kept=True)
    with torch.no_grad(), recorder:
        output = model(image)
    outputs = tensors_in(output)
    for tensor in outputs:
        recorder.keep(recorder.labels(tensor))
    return recorder.flow(outputs)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator and keeps the labels of the tensors.

    Args:
        names: of the parameters and buffers, by id().
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = names
        self._parents: list[int] = []
        self._kept: set[int] = set()
        self._tied: list[set[int]] = []
        self._sites: dict[Site, list[int]] = {}
        self._unknown: dict[str, None] = {}
        self._positions: dict[str, int] = {}
        # By id(); the tensors are held, so that no id is used twice.
        self._labels: dict[int, tuple[Tensor, Tensor]] = {}
        # Views of parameters: the parameter's name and which of its dimensions each dimension is.
        self._views: dict[int, tuple[Tensor, str, tuple[int, ...]]] = {}

    # Labels and channels: a forest, in which labels that meet get one root.

    def fresh(self) -> int:
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def _root(self, label: int) -> int:
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label

    def _join(self, first: int, second: int) -> None:
        if first != CONSTANT and second != CONSTANT:
            one, other = self._root(first), self._root(second)
            self._parents[max(one, other)] = min(one, other)

    def keep(self, labels: Tensor) -> None:
        self._kept.update(_found_in(labels))

    def begin(self, tensor: Tensor, channels: Sequence[int], *, dim: int, kept: bool = False) -> None:
        """Label a tensor along one dimension."""
        shape = [1] * tensor.dim()
        shape[dim] = len(channels)
        labels = torch.tensor(channels).reshape(shape).expand(tensor.shape)
        self._give(tensor, labels)
        if kept:
            self.keep(labels)

    def _give(self, tensor: Tensor, labels: Tensor) -> None:
        self._labels[id(tensor)] = tensor, labels

    def labels(self, tensor: Tensor) -> Tensor:
        known = self._labels.get(id(tensor))
        if known is None:
            return torch.tensor(CONSTANT).expand(tensor.shape)
        return known[1]

    def _uses(self, tensor: Tensor | None, dim: int, channels: Sequence[int]) -> None:
        """Record that the positions of a parameter belong to these channels."""
        found = self._parameter(tensor)
        if found is None:
            return
        name, dims = found
        site = Site(name, dims[dim])
        earlier = self._sites.setdefault(site, list(channels))
        # A layer that runs twice has the same channels both times.
        for one, other in zip(earlier, channels, strict=True):
            self._join(one, other)

    def _parameter(self, tensor: Tensor | None) -> tuple[str, tuple[int, ...]] | None:
        if tensor is None:
            return None
        if id(tensor) in self._names:
            return self._names[id(tensor)], tuple(range(tensor.dim()))
        view = self._views.get(id(tensor))
        return None if view is None else (view[1], view[2])

    def flow(self, outputs: Iterable[Tensor]) -> Flow:
        """All that was recorded."""
        return Flow(
            {
                site: np.array([CONSTANT if label == CONSTANT else self._root(label) for label in labels])
                for site, labels in self._sites.items()
            },
            frozenset(self._root(label) for label in self._kept),
            tuple(frozenset(self._root(label) for label in labels) for labels in self._tied),
            tuple(self._unknown),
            tuple(tuple(tensor.shape) for tensor in outputs),
            self._positions,
            frozenset(self._root(label) for tensor in outputs for label in _found_in(self.labels(tensor))),
        )

    # Operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        handle = _RULES.get(name) or _RULES.get(name.removesuffix("_"))
        if handle is None and _is_pointwise(func):
            handle = _Recorder._pointwise
        inputs = [tensor for tensor in tensors_in([args, kwargs]) if self._is_labelled(tensor)]
        if handle is None or not handle(self, func, result, args, kwargs or {}):
            if inputs:
                self._give_up(name, inputs)
        return result

    def _is_labelled(self, tensor: Tensor) -> bool:
        return id(tensor) in self._labels

    def _give_up(self, name: str, inputs: Iterable[Tensor]) -> None:
        """Keep all channels of the inputs; what comes out belongs to none."""
        for tensor in inputs:
            labels = self.labels(tensor)
            if bool((labels != CONSTANT).any()):
                self._unknown[f"aten::{name}"] = None
                self.keep(labels)

    def _convolution(self, func: Any, result: Tensor, args: Any, kwargs: Any) -> bool:
        images, weight, bias, groups, transposed = args[0], args[1], args[2], args[8], args[6]
        channels = _along(self.labels(images), 1)
        if channels is None or transposed or self._parameter(weight) is None:
            return False
        outputs = [self.fresh() for _ in range(weight.shape[0])]
        if groups == 1:
            self._uses(weight, 1, channels)
        else:
            self._join_groups(channels, outputs, groups)
        self._uses(weight, 0, outputs)
        self._uses(bias, 0, outputs)
        self._begin_outputs(result, weight, outputs)
        return True

    def _begin_outputs(self, result: Tensor, weight: Tensor, outputs: Sequence[int]) -> None:
        """Label what a layer computes, (1, C, H, W) or (N, C)."""
        self.begin(result, outputs, dim=1)
        parameter = self._parameter(weight)
        assert parameter is not None
        self._positions[parameter[0]] = self._positions.get(parameter[0], 0) + result.numel() // len(outputs)

    def _join_groups(self, channels: Sequence[int], outputs: Sequence[int], groups: int) -> None:
        """A group of a convolution remains whole or goes: its inputs and outputs are one channel."""
        into, out = len(channels) // groups, len(outputs) // groups
        for group in range(groups):
            members = [*channels[group * into : (group + 1) * into], *outputs[group * out : (group + 1) * out]]
            for member in members:
                self._join(members[-1], member)

    def _matmul(self, func: Any, result: Tensor, args: Any, kwargs: Any) -> bool:
        bias, inputs, weight = args if len(args) == 3 else (None, *args)
        channels = _along(self.labels(inputs), 1)
        if channels is None or self._parameter(weight) is None:
            return False
        outputs = [self.fresh() for _ in range(weight.shape[1])]
        self._uses(weight, 0, channels)
        self._uses(weight, 1, outputs)
        self._uses(bias, 0, outputs)
        self._begin_outputs(result, weight, outputs)
        return True

    def _batch_norm(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        labels = self.labels(args[0])
        channels = _along(labels, 1)
        if channels is None:
            return False
        for parameter in args[1:5]:
            self._uses(parameter, 0, channels)
        self._give(result[0], labels)
        return True

    def _pointwise(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        tensors = list(tensors_in([args, kwargs]))
        if not isinstance(result, Tensor) or any(self._is_view_of_parameter(tensor) for tensor in tensors):
            return False
        labels = torch.tensor(CONSTANT).expand(result.shape)
        for other in (self.labels(tensor).expand(result.shape) for tensor in tensors):
            both = torch.stack([labels, other])[:, (labels != CONSTANT) & (other != CONSTANT) & (labels != other)]
            for one, second in np.unique(both.numpy(), axis=1).T.tolist():
                self._join(one, second)
            labels = torch.where(labels == CONSTANT, other, labels)
        for tensor in tensors:
            if id(tensor) in self._names and not self._spread(tensor, labels):
                return False
        self._give(result, labels)
        return True

    def _is_view_of_parameter(self, tensor: Tensor) -> bool:
        return id(tensor) in self._views

    def _spread(self, parameter: Tensor, labels: Tensor) -> bool:
        """Record the channels that a parameter, broadcast to `labels`, belongs to; False where that is not clear."""
        skipped = labels.dim() - parameter.dim()
        for dim, size in enumerate(parameter.shape):
            if size > 1:
                channels = _along(labels, skipped + dim)
                # Positions that all have the same channel are no channels, e.g. pixels.
                if channels is None or len(set(channels)) < size:
                    if parameter.numel() == size:
                        return False
                    continue
                self._uses(parameter, dim, channels)
        return True

    def _moves(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        moved = self._parameter(args[0]) if isinstance(args[0], Tensor) else None
        if moved is not None and isinstance(result, Tensor):
            return self._view_of_parameter(func, result, args, moved)
        if func.overloadpacket.__name__ in ("view", "_unsafe_view"):
            # Labels are expanded, which only reshape() copes with.
            labels: Any = self.labels(args[0]).reshape(args[1])
        else:
            labels = func(*tree_map(self._label_or_value, args), **tree_map(self._label_or_value, kwargs))
        self._give_all(result, labels)
        self._tie(args, labels)
        return True

    def _view_of_parameter(self, func: Any, result: Tensor, args: Any, moved: tuple[str, tuple[int, ...]]) -> bool:
        name, dims = moved
        numbered = torch.empty([2 + dim for dim in range(len(dims))], device="meta")
        if func.overloadpacket.__name__ not in ("t", "transpose", "permute"):
            return False
        order = func(numbered, *args[1:]).shape
        self._views[id(result)] = result, name, tuple(dims[size - 2] for size in order)
        return True

    def _label_or_value(self, value: Any) -> Any:
        return self.labels(value) if isinstance(value, Tensor) else value

    def _give_all(self, result: Any, labels: Any) -> None:
        for tensor, label in zip(tensors_in(result), tensors_in(labels), strict=True):
            self._give(tensor, label)

    def _tie(self, args: Any, labels: Any) -> None:
        """Where a tensor's channels are cut into parts, they must be removed in proportion."""
        before = {label for tensor in tensors_in(args) for label in _found_in(self.labels(tensor))}
        for part in tensors_in(labels):
            if 0 < len(_found_in(part)) < len(before):
                self._tied.append(before)
                return

    def _pads(self, func: Any, result: Tensor, args: Any, kwargs: Any) -> bool:
        self._give(result, func(self.labels(args[0]), args[1], CONSTANT))
        return True

    def _keeps(self, func: Any, result: Tensor, args: Any, kwargs: Any) -> bool:
        if self._parameter(args[0]) is not None:
            return False
        self._give(result, self.labels(args[0]))
        return True

    def _pools(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        tensor = result if isinstance(result, Tensor) else result[0]
        labels = self.labels(args[0])
        if _along(labels, labels.dim() - 3) is None:
            return False
        self._give(tensor, labels[..., :1, :1].expand(tensor.shape))
        return True

    def _reduces(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        labels = self.labels(args[0])
        dims = args[1] if len(args) > 1 and args[1] else list(range(labels.dim()))
        keepdim = bool(args[2]) if len(args) > 2 else False
        least = labels.amin(dims, keepdim=keepdim)
        if not torch.equal(least, labels.amax(dims, keepdim=keepdim)):
            return False
        self._give(result, least)
        return True


def _found_in(labels: Tensor) -> list[int]:
    """The channels that occur."""
    return [label for label in np.unique(labels.numpy()).tolist() if label != CONSTANT]


def _along(labels: Tensor, dim: int) -> list[int] | None:
    """The labels along one dimension; None where they differ along another one."""
    rows = labels.transpose(0, dim).reshape(labels.shape[dim], -1)
    if not bool((rows == rows[:, :1]).all()):
        return None
    return [int(label) for label in rows[:, 0].tolist()]


def _is_pointwise(func: Any) -> bool:
    name = func.overloadpacket.__name__.removesuffix("_")
    if torch.Tag.pointwise in func.tags or name in _UNTAGGED:
        return True
    # In-place operators lack the tag that their twins have, e.g. hardtanh_.
    twin = getattr(_aten, name, None)
    return twin is not None and any(torch.Tag.pointwise in getattr(twin, each).tags for each in twin.overloads())


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors in lists, tuples and dictionaries of them."""
    return [value for value in torch.utils._pytree.tree_leaves(values) if isinstance(value, Tensor)]


_Rule = Callable[[_Recorder, Any, Any, Any, Any], bool]
_RULES: dict[str, _Rule] = {
    "convolution": _Recorder._convolution,
    "addmm": _Recorder._matmul,
    "mm": _Recorder._matmul,
    "native_batch_norm": _Recorder._batch_norm,
    "_native_batch_norm_legit_no_training": _Recorder._batch_norm,
    "constant_pad_nd": _Recorder._pads,
    **dict.fromkeys(_MOVES, _Recorder._moves),
    **dict.fromkeys(_KEEPS, _Recorder._keeps),
    **dict.fromkeys(_POOLS | _RESIZES, _Recorder._pools),
    **dict.fromkeys(_REDUCES, _Recorder._reduces),
}
