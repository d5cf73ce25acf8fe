"""Features read off a network by module path.

A path is a module's name and means its output: `layer3`, `features.8.conv`. `fc@input` is what goes into the module.
A feature is a map (B, C, H, W), square because images are, or a vector (B, C).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgekd.errors import ModelError, UnknownNameError

Shape = tuple[int, ...]
Kind = Literal["middle", "stages", "maps", "last", "embedding"]

INPUT = "@input"
PROBE_BATCH = 2


class Taps:
    """Records the outputs of modules during a forward pass, without changing it.

    The modules are found once, so that wrapping the network later changes nothing.

    Args:
        network: whose modules are tapped.
        paths: of the modules; see this file's docstring.
        whose: what messages call the network.

    Raises:
        UnknownNameError: the network has no such module.
    """

    def __init__(self, network: nn.Module, paths: Sequence[str], *, whose: str = "network") -> None:
        modules = modules_of(network)
        self._whose = whose
        self._points: dict[str, nn.Module] = {}
        for path in paths:
            name = path.removesuffix(INPUT)
            if name not in modules:
                raise UnknownNameError(f"module of the {whose}", name, modules)
            self._points[path] = modules[name]

    @contextmanager
    def reading(self) -> Iterator[dict[str, Tensor]]:
        """Record the features of the forward pass inside the with-block; of a module that runs several times the last.

        The features are copies, since the next module may be an in-place ReLU or dropout; gradients flow through them.

        Returns:
            From path to feature, complete when the block ends.

        Raises:
            ModelError: a module did not run, or its output is not a single tensor.
        """
        read: dict[str, Tensor] = {}
        hooks = [_listen(module, path, read, self._whose) for path, module in self._points.items()]
        try:
            yield read
        finally:
            for hook in hooks:
                hook.remove()
        for path in self._points:
            if path not in read:
                raise untappable(self._whose, path, "nothing: it did not run")
            read[path] = read.pop(path)


def modules_of(network: nn.Module) -> dict[str, nn.Module]:
    """The modules by path, without the network itself; a module that is used twice has two paths."""
    return {path: module for path, module in network.named_modules(remove_duplicate=False) if path}


def untappable(whose: str, path: str, gives: object, hint: str | None = None) -> ModelError:
    """The error for a module whose output is not a feature.

    Args:
        whose: what the message calls the network.
        path: of the module.
        gives: its output in words.
        hint: for the message.
    """
    allowed = "a map (B, C, H, W) or a vector (B, C)"
    return ModelError(f"the {whose}'s {path} cannot be tapped", found=gives, allowed=allowed, hint=hint)


def feature_shape(value: Any) -> Shape | str:
    """The shape of a feature of PROBE_BATCH images, without the batch; for any other value, a description in words."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (tuple, list, dict)) else "")
    shape = tuple(value.shape)
    if shape[:1] == (PROBE_BATCH,) and (len(shape) == 2 or (len(shape) == 4 and shape[2] == shape[3])):
        return shape[1:]
    batch = "B" if shape[:1] == (PROBE_BATCH,) else str(shape[0]) if shape else ""
    rest = ", ".join([batch, *map(str, shape[1:])])
    return f"tokens ({rest})" if len(shape) == 3 else f"a tensor ({rest})"


def _listen(module: nn.Module, path: str, read: dict[str, Tensor], whose: str) -> torch.utils.hooks.RemovableHandle:
    def keep(value: Any) -> None:
        if not isinstance(value, Tensor):
            raise untappable(whose, path, feature_shape(value))
        read[path] = value.clone()

    if path.endswith(INPUT):
        return module.register_forward_pre_hook(lambda _, inputs: keep(inputs[0] if inputs else None))
    return module.register_forward_hook(lambda _, __, output: keep(output))
