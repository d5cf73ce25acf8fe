"""Weights from disk, without ever unpickling code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
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
    # torch-pruning and older torch versions leave this counter out; it has no part in inference.
    missing = sorted(k for k in own if k not in state and not k.endswith("num_batches_tracked"))
    unexpected = sorted(set(state) - set(own))
    shapes = [
        f"{name} is {tuple(state[name].shape)}, the network has {tuple(own[name].shape)}"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
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


def save_state(model: nn.Module, path: Path) -> None:
    """Every parameter and buffer, contiguous, as safetensors."""
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}, path)


def _named(missing: list[str], unexpected: list[str]) -> tuple[tuple[str, list[str]], ...]:
    return ("missing", missing), ("unexpected", unexpected)
