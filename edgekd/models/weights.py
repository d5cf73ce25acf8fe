"""Weights from disk, without ever unpickling code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgekd.errors import ModelError

# Where trainers commonly put the state dict inside what they save.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from .safetensors, or from a file of torch.save that holds tensors only.

    Raises:
        ModelError: no such file, a corrupt one, or one that would need code to be run.
    """
    if not path.is_file():
        raise ModelError(
            f"{path} is not there", allowed="a checkpoint folder, .safetensors, or a state dict (.pth, .pt)"
        )
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError:
        # PyTorch's own message advises to unpickle it all the same, which would run whatever code is in it.
        raise ModelError(
            f"{path} cannot be read as weights",
            found="no file of torch.save, or one that holds more than tensors",
            hint="save a plain state dict: safetensors.torch.save_file(model.state_dict(), …)",
        ) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ModelError(
            f"{path} cannot be read as weights",
            found=str(error).splitlines()[0][:200] if str(error) else type(error).__name__,
            hint="save a plain state dict: safetensors.torch.save_file(model.state_dict(), …)",
        ) from None
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ModelError(f"{path} holds no state dict", found=type(loaded).__name__)
    return {str(name).removeprefix("module."): value for name, value in loaded.items()}


def load_state(model: nn.Module, state: Mapping[str, Tensor], *, origin: object) -> None:
    """Strictly: every tensor of the network, and no other.

    Raises:
        ModelError: names or shapes differ; says which.
    """
    own = model.state_dict()
    missing, unexpected, other = _misfits(own, state)
    shapes = [f"{name} is {tuple(state[name].shape)}, the network has {tuple(own[name].shape)}" for name in other]
    problems = [
        *(f"{len(names)} tensors {what}, e.g. {names[0]}" for what, names in _named(missing, unexpected) if names),
        *shapes[:3],
    ]
    if problems:
        raise ModelError(
            f"the weights of {origin} do not fit this network",
            found="; ".join(problems),
            hint="name the model, its arguments, its stem and its classes as they were when these weights were trained",
        )
    model.load_state_dict(dict(state), strict=False)


@dataclass(frozen=True)
class OtherHead:
    """A classifier's last layer as weights have it, for `before` classes (0: they have none), where the network's is
    for `after`."""

    layer: str
    before: int
    after: int

    def __str__(self) -> str:
        became = f"its {self.before} classes became {self.after}" if self.before else "its weights came without one"
        return f"The classifier ({self.layer}) was made anew: {became}."

    def left_out(self, model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state with the network's own tensors for this layer."""
        own = model.state_dict()
        return {name: own[name] if name.rpartition(".")[0] == self.layer else value for name, value in state.items()}


def other_head(model: nn.Module, state: Mapping[str, Tensor], classes: int) -> OtherHead | None:
    """Where the last layer is all that differs, and only in its number of classes; None for any other state.

    That it is the last needs no looking up: a layer with another behind it would not be the only one to differ.
    """
    own = model.state_dict()
    missing, unexpected, other = _misfits(own, state)
    layers = {name.rpartition(".")[0] for name in other}
    if missing or unexpected or len(layers) != 1 or any(own[n].shape[1:] != state[n].shape[1:] for n in other):
        return None
    layer = layers.pop()
    if f"{layer}.weight" not in other or not set(other) <= {f"{layer}.weight", f"{layer}.bias"}:
        return None
    widths = {(state[name].shape[0], own[name].shape[0]) for name in other}
    before, after = widths.pop()
    return OtherHead(layer, before, after) if not widths and after == classes else None


def last_layer(model: nn.Module, classes: int) -> str:
    """The last layer with an output for each class. Raises ModelError where none has as many."""
    found = [name for name, value in model.state_dict().items() if name.endswith(".weight") and len(value) == classes]
    if not found:
        raise ModelError(
            f"{type(model).__name__} has no last layer that is known as one",
            found=f"no weights with {classes} rows, one a class",
            hint="choose another network, or begin without published weights",
        )
    return found[-1].removesuffix(".weight")


def save_state(model: nn.Module, path: Path) -> None:
    """Every parameter and buffer, contiguous, as safetensors."""
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}, path)


def _misfits(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Names that are missing, that are too many, and that have another shape."""
    # torch-pruning and older torch versions leave this counter out; it has no part in inference.
    missing = sorted(k for k in own if k not in state and not k.endswith("num_batches_tracked"))
    return missing, sorted(set(state) - set(own)), [k for k in own if k in state and own[k].shape != state[k].shape]


def _named(missing: list[str], unexpected: list[str]) -> tuple[tuple[str, list[str]], ...]:
    return ("missing", missing), ("unexpected", unexpected)
