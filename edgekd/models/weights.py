"""Writes weights, reads and loads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.models.values import FLOATS, check_values, other_types, type_of
from edgekd.wording import counted


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors file of edgekd's own; for other files: edgekd.models.state_files.

    Raises:
        ModelError: no such file, or a damaged one.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        found = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ModelError(f"{path} cannot be read as weights", found=found) from None


def load_state(model: nn.Module, state: Mapping[str, Tensor], *, origin: object) -> None:
    """Load a state dict strictly: every tensor of the network, and no other.

    Args:
        model: changed in place.
        state: tensors by name; num_batches_tracked may be missing.
        origin: where the state comes from, for the message.

    Raises:
        ModelError: names, shapes or types differ, or values are not finite; the message lists them.
    """
    if problems_of(model, state):
        raise unfitting(model, state, origin=origin)
    check_values(model, state, origin=origin)
    put_state(model, state)


def put_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Overwrite tensors of a network, as load_state_dict() with the network's own versions of its modules.

    These are no tensors, so that a file has none; MNASNet refuses weights without.

    Args:
        model: changed in place.
        state: tensors by name; others stay as they are.

    Raises:
        RuntimeError: a name is not the network's, or a shape differs.
    """
    whole = model.state_dict()
    whole.update(state)
    model.load_state_dict(whole)


def unfitting(model: nn.Module, state: Mapping[str, Tensor], *, origin: object, label: str = "") -> ModelError:
    """The error for a state dict that does not fit a network.

    Args:
        model: the network.
        state: tensors by name.
        origin: where the state comes from.
        label: where it stands in there.
    """
    own = model.state_dict()
    only_types = not any(_mismatches(own, state))
    *names, last = [str(dtype).removeprefix("torch.") for dtype in FLOATS]
    return ModelError(
        f"the weights of {origin} do not fit this network",
        found="; ".join(([f"under {label}"] if label else []) + problems_of(model, state)),
        allowed=f"{', '.join(names)} or {last} where the network has floats" if only_types else None,
        hint="take the float weights: those of a quantized model are other numbers without its scales"
        if only_types
        else "set the model, its arguments, its stem and its classes as they were when these weights were trained",
    )


def problems_of(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Why a state dict does not fit a network; empty where it does."""
    own = model.state_dict()
    missing, unexpected, other = _mismatches(own, state)
    named = (("missing", missing), ("unexpected", unexpected))
    shapes = [f"{name} is {tuple(state[name].shape)}, the network has {tuple(own[name].shape)}" for name in other]
    kinds = other_types(own, state)
    types = [f"{name} is {type_of(state[name])}, the network has {type_of(own[name])}" for name in kinds[:1]]
    return [
        *(f"{counted(len(names), 'tensor')} {what}, e.g. {names[0]}" for what, names in named if names),
        *shapes[:3],
        *(f"{counted(len(kinds), 'tensor')} of another type, e.g. {example}" for example in types),
    ]


@dataclass(frozen=True)
class NewHead:
    """A newly initialised last layer: the weights have `before` classes (0: no classifier), the network `after`."""

    layer: str
    before: int
    after: int

    def __str__(self) -> str:
        became = (
            f"its {counted(self.before, 'class')} became {self.after}"
            if self.before
            else "its weights came without one"
        )
        return f"The classifier ({self.layer}) was newly initialised: {became}."

    def replaced(self, model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dict with the network's own tensors for this layer."""
        own = model.state_dict()
        return {name: own[name] if name.rpartition(".")[0] == self.layer else value for name, value in state.items()}


def new_head(model: nn.Module, state: Mapping[str, Tensor], classes: int) -> NewHead | None:
    """The last layer, if it is all that differs and only in its number of classes; None for any other state.

    It need not be looked up: if another layer followed it, that layer would differ too.

    Args:
        model: the network that the weights are for.
        state: tensors by name.
        classes: the number of classes of the network.
    """
    own = model.state_dict()
    missing, unexpected, other = _mismatches(own, state)
    layers = {name.rpartition(".")[0] for name in other}
    if other_types(own, state):
        return None
    if missing or unexpected or len(layers) != 1 or any(own[n].shape[1:] != state[n].shape[1:] for n in other):
        return None
    layer = layers.pop()
    if f"{layer}.weight" not in other or not set(other) <= {f"{layer}.weight", f"{layer}.bias"}:
        return None
    widths = {(state[name].shape[0], own[name].shape[0]) for name in other}
    before, after = widths.pop()
    return NewHead(layer, before, after) if not widths and after == classes else None


def last_layer(model: nn.Module, classes: int) -> str:
    """The last layer with one output per class.

    Args:
        model: the network.
        classes: its number of classes.

    Returns:
        The layer's path in the network, such as "classifier.3".

    Raises:
        ModelError: no layer has as many outputs.
    """
    layers = [name for name, value in model.state_dict().items() if name.endswith(".weight") and len(value) == classes]
    if not layers:
        raise ModelError(
            f"the last layer of {type(model).__name__} cannot be determined",
            found=f"no weights with {classes} rows, one per class",
            hint="choose another network, or start without published weights",
        )
    return layers[-1].removesuffix(".weight")


def save_state(model: nn.Module, path: Path) -> None:
    """Save every parameter and buffer, contiguous, as safetensors."""
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}, path)


def _mismatches(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """The names that are missing, that are unexpected, and that have another shape."""
    # torch-pruning and older PyTorch versions omit this counter, which inference does not use.
    missing = sorted(k for k in own if k not in state and not k.endswith("num_batches_tracked"))
    return missing, sorted(set(state) - set(own)), [k for k in own if k in state and own[k].shape != state[k].shape]
