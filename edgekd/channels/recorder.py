"""A label for every channel flows through the operators that a network executes.

Beside every tensor goes one of labels, of the same shape, which names the channel that each element belongs to.
Operators that only move values (views, permutations, concatenations, slices) are applied to the labels as they are, so
a channel shuffle, a split or a padded shortcut needs no rule of its own. What layers, batch norms and operators that
combine elements do to labels depends on the question: subclasses state it. Works on what PyTorch executes, so any
control flow of the network's code is followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

Labels = npt.NDArray[np.int64]

# An element that is the same whatever the channels are: padding, a constant.
CONSTANT = -1

_aten = torch.ops.aten
# Element by element, though PyTorch does not tag them so.
_UNTAGGED = {"hardswish"}
_MOVES = {
    *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "slice", "select", "split", "split_with_sizes"),
    *("cat", "stack", "expand", "squeeze", "unsqueeze", "unbind", "flip", "roll", "repeat", "index_select", "narrow"),
    *("index", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle"),
}
_KEEPS = {"clone", "alias", "detach", "_to_copy", "contiguous", "lift_fresh", "dropout"}
_POOLS = {"max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d"}
_RESIZES = {"upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"}
_ZEROS = {"zeros", "new_zeros", "zeros_like"}
_REDUCES = {"mean", "sum", "amax", "amin"}


@dataclass(frozen=True)
class Site:
    """A dimension of a parameter or buffer whose positions belong to channels."""

    tensor: str
    dim: int


class ChannelRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator and keeps the labels of the tensors.

    Attributes:
        sites: the labels of every position at each site, CONSTANT where it belongs to none.
        unknown: the operators whose inputs' channels were kept, e.g. "aten::_softmax".

    Args:
        names: of the parameters and buffers, by id().
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sites: dict[Site, list[int]] = {}
        self.unknown: dict[str, None] = {}
        self._names = names
        self._parents: list[int] = []
        self._kept: set[int] = set()
        # By id(); the tensors are held, so that no id is used twice.
        self._labels: dict[int, tuple[Tensor, Tensor]] = {}
        # Views of parameters: the parameter's name and which of its dimensions each dimension is.
        self._views: dict[int, tuple[Tensor, str, tuple[int, ...]]] = {}

    # What operators that compute do to labels; False where this one is not understood.

    def convolution(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        return False

    def matmul(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        return False

    def batch_norm(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        return False

    def pointwise(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        return False

    def prelu(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        return False

    def pads(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        self.give(result, func(self.labels(args[0]), args[1], CONSTANT))
        return True

    def moved(self, args: Any, labels: Any) -> None:
        """Called with the arguments of an operator that moves values, and the labels of its results."""

    # Labels and channels: a forest, in which labels that meet get one root.

    def fresh(self) -> int:
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def root(self, label: int) -> int:
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label

    def join(self, first: int, second: int) -> None:
        if first != CONSTANT and second != CONSTANT:
            one, other = self.root(first), self.root(second)
            self._parents[max(one, other)] = min(one, other)

    def keep(self, labels: Tensor) -> None:
        self._kept.update(found_in(labels))

    def begin(self, tensor: Tensor, channels: Sequence[int], *, dim: int, kept: bool = False) -> None:
        """Label a tensor along one dimension."""
        shape = [1] * tensor.dim()
        shape[dim] = len(channels)
        labels = torch.tensor(channels).reshape(shape).expand(tensor.shape)
        self.give(tensor, labels)
        if kept:
            self.keep(labels)

    def give(self, tensor: Tensor, labels: Tensor) -> None:
        self._labels[id(tensor)] = tensor, labels

    @property
    def kept(self) -> frozenset[int]:
        """The channels whose labels were kept."""
        return frozenset(self.root(label) for label in self._kept)

    def labels(self, tensor: Tensor) -> Tensor:
        known = self._labels.get(id(tensor))
        return self.unlabelled(tensor).expand(tensor.shape) if known is None else known[1]

    def unlabelled(self, tensor: Tensor) -> Tensor:
        """The label of the elements of a tensor that none was given."""
        return torch.tensor(CONSTANT)

    def merged(self, tensors: Iterable[Tensor], shape: Sequence[int]) -> Tensor:
        """The labels of what is combined element by element; those that meet become one."""
        labels = torch.tensor(CONSTANT).expand(shape)
        for other in (self.labels(tensor).expand(shape) for tensor in tensors):
            both = torch.stack([labels, other])[:, (labels != CONSTANT) & (other != CONSTANT) & (labels != other)]
            for one, second in np.unique(both.numpy(), axis=1).T.tolist():
                self.join(one, second)
            labels = torch.where(labels == CONSTANT, other, labels)
        return labels

    def uses(self, tensor: Tensor | None, dim: int, channels: Sequence[int]) -> None:
        """Record that the positions of a parameter belong to these channels."""
        found = self.parameter(tensor)
        if found is None:
            return
        name, dims = found
        site = Site(name, dims[dim])
        earlier = self.sites.setdefault(site, list(channels))
        # A layer that runs twice has the same channels both times.
        for one, other in zip(earlier, channels, strict=True):
            self.join(one, other)

    def parameter(self, tensor: Tensor | None) -> tuple[str, tuple[int, ...]] | None:
        if tensor is None:
            return None
        if id(tensor) in self._names:
            return self._names[id(tensor)], tuple(range(tensor.dim()))
        view = self._views.get(id(tensor))
        return None if view is None else (view[1], view[2])

    # Operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        rule = _RULES.get(name) or _RULES.get(name.removesuffix("_")) or ("pointwise" if _is_pointwise(func) else None)
        inputs = [tensor for tensor in tensors_in([args, kwargs]) if self._is_labelled(tensor)]
        if (rule is None or not getattr(self, rule)(func, result, args, kwargs or {})) and inputs:
            self._give_up(name, inputs)
        return result

    def _is_labelled(self, tensor: Tensor) -> bool:
        return id(tensor) in self._labels

    def _give_up(self, name: str, inputs: Iterable[Tensor]) -> None:
        """Keep all channels of the inputs; what comes out belongs to none."""
        for tensor in inputs:
            labels = self.labels(tensor)
            if bool((labels != CONSTANT).any()):
                self.unknown[f"aten::{name}"] = None
                self.keep(labels)

    def _moves(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        moved = self.parameter(args[0]) if isinstance(args[0], Tensor) else None
        if moved is not None and isinstance(result, Tensor):
            return self._view_of_parameter(func, result, args, moved)
        if func.overloadpacket.__name__ in ("view", "_unsafe_view"):
            # Labels are expanded, which only reshape() copes with.
            labels: Any = self.labels(args[0]).reshape(args[1])
        else:
            labels = func(*tree_map(self._label_or_value, args), **tree_map(self._label_or_value, kwargs))
        self._give_all(result, labels)
        self.moved(args, labels)
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
        # Integers are places, of an index.
        return self.labels(value) if isinstance(value, Tensor) and value.is_floating_point() else value

    def _give_all(self, result: Any, labels: Any) -> None:
        for tensor, label in zip(tensors_in(result), tensors_in(labels), strict=True):
            self.give(tensor, label)

    def _keeps(self, func: Any, result: Tensor, args: Any, kwargs: Any) -> bool:
        if self.parameter(args[0]) is not None:
            return False
        self.give(result, self.labels(args[0]))
        return True

    def _pools(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        tensor = result if isinstance(result, Tensor) else result[0]
        labels = self.labels(args[0])
        if along(labels, labels.dim() - 3) is None:
            return False
        self.give(tensor, labels[..., :1, :1].expand(tensor.shape))
        return True

    def _zeros(self, func: Any, result: Tensor, args: Any, kwargs: Any) -> bool:
        self.give(result, torch.tensor(CONSTANT).expand(result.shape))
        return True

    def _reduces(self, func: Any, result: Any, args: Any, kwargs: Any) -> bool:
        labels = self.labels(args[0])
        dims = args[1] if len(args) > 1 and args[1] else list(range(labels.dim()))
        keepdim = bool(args[2]) if len(args) > 2 else False
        least = labels.amin(dims, keepdim=keepdim)
        if not torch.equal(least, labels.amax(dims, keepdim=keepdim)):
            return False
        self.give(result, least)
        return True


def found_in(labels: Tensor) -> list[int]:
    """The channels that occur."""
    return [label for label in np.unique(labels.numpy()).tolist() if label != CONSTANT]


def along(labels: Tensor, dim: int) -> list[int] | None:
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


# The method of ChannelRecorder that sees each operator.
_RULES = {
    "convolution": "convolution",
    "addmm": "matmul",
    "mm": "matmul",
    "native_batch_norm": "batch_norm",
    "_native_batch_norm_legit_no_training": "batch_norm",
    "_prelu_kernel": "prelu",
    "constant_pad_nd": "pads",
    **dict.fromkeys(_ZEROS, "_zeros"),
    **dict.fromkeys(_MOVES, "_moves"),
    **dict.fromkeys(_KEEPS, "_keeps"),
    **dict.fromkeys(_POOLS | _RESIZES, "_pools"),
    **dict.fromkeys(_REDUCES, "_reduces"),
}
