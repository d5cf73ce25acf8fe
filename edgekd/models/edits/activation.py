"""Other activations: {"edit": "activation", "activation": "relu"}, instead of every hard-swish and SiLU (swish).

Both cost more than the convolutions around them where an engine has no kernel for them, as most have not in int8. The
gates of squeeze-and-excitation (sigmoid, hard-sigmoid) stay: they are computed for one value per channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from edgekd.errors import ModelError
from edgekd.models.edits import Edit

NAME = "activation"
RELU: Mapping[str, Any] = {"edit": NAME, "activation": "relu"}
# By name: timm has classes of its own, some of them with other memory needs (Me).
_REPLACED = frozenset({"Hardswish", "HardSwish", "HardSwishMe", "SiLU", "Swish", "SwishMe"})


def with_relu(model: nn.Module) -> int:
    """Replace every hard-swish and SiLU module by a ReLU, in place; returns how many places there were."""
    places = [
        path
        for path, module in model.named_modules(remove_duplicate=False)
        if path and type(module).__name__ in _REPLACED
    ]
    for path in places:
        model.set_submodule(path, nn.ReLU(inplace=True))
    # The gradient of a ReLU needs its output, that of a hard-swish its input: a dropout behind it may not overwrite it.
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.inplace = False
    return len(places)


def apply(model: nn.Module, edit: Mapping[str, Any]) -> nn.Module:
    """Replace the activations of `model`, in place.

    Raises:
        ModelError: it has none to replace, or the edit is of another version.
    """
    if edit["activation"] != "relu":
        raise ModelError("the activation of this checkpoint is not known", found=edit["activation"], allowed="relu")
    if not with_relu(model):
        raise ModelError(
            f"{type(model).__name__} has no hard-swish and no SiLU that a ReLU could replace",
            found=_activations(model),
            hint="remove activation: relu; functions that a forward() calls are not replaced, only modules are",
        )
    return model


def _activations(model: nn.Module) -> str:
    kinds = {type(module).__name__ for module in model.modules() if type(module).__module__ == nn.ReLU.__module__}
    return ", ".join(sorted(kinds)) or "no activation modules"


EDIT = Edit(apply=apply)
