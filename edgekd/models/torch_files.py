"""Reads files of weights. No code in a file runs: only classes known by name are stood for by inert objects."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from edgekd.errors import ModelError
from edgekd.models.pickled import Contents

SAVE_PLAIN = "save a plain state dict: safetensors.torch.save_file(model.state_dict(), …)"
# What training scripts save beside the weights: settings, paths, dates, numbers. Instead of these classes an empty
# object is built, so that nothing of theirs runs.
_BYSTANDERS = frozenset(
    "__main__ addict argparse collections datetime decimal easydict enum fractions lightning lightning_fabric mmcv "
    "mmengine ml_collections numpy omegaconf pathlib pytorch_lightning timm torch types typing uuid yacs".split()
)
_BUILTINS = frozenset(
    f"builtins.{name}" for name in "bool bytes dict float frozenset int list range slice str tuple".split()
)
_DICTS = frozenset({"collections.defaultdict", "addict.addict.Dict", "easydict.EasyDict", "yacs.config.CfgNode"})


class _Inert:
    """Stands for an object of a class that is not a tensor's. Takes any arguments and any state, and keeps none."""

    def __new__(cls, *_arguments: object, **_named: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_arguments: object, **_named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class Arguments(_Inert):
    """Stands for an argparse.Namespace: the values that it holds, whatever they are."""

    values: Mapping[str, Any] = MappingProxyType({})

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.values = state


def _empty_dict(*_arguments: object) -> dict[Any, Any]:
    return {}


_STANDS_FOR: Mapping[str, Any] = {**dict.fromkeys(_DICTS, _empty_dict), "argparse.Namespace": Arguments}


def read(path: Path, contents: Contents, *, mapped: bool = False) -> object:
    """What a file of weights holds. Objects other than tensors and plain values are stood for by empty ones.

    Args:
        path: a .safetensors file, or one of torch.save.
        contents: of the file; nothing for a .safetensors file.
        mapped: leave the tensors on the disk where the file's format allows that.

    Raises:
        ModelError: it is damaged, or has objects that could be code.
    """
    if contents.torchscript:
        raise ModelError(
            f"{path} is a TorchScript model, and a checkpoint must hold weights by name",
            hint=f'save them: torch.save(torch.jit.load("{path.name}").state_dict(), "{path.stem}-weights.pth")',
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        stand_ins: list[Any] = _stand_ins(contents.unsafe)
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, "cpu", weights_only=True, mmap=mapped and zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if contents.module is not None:
            raise whole_model(path, contents.module) from None
        # PyTorch's own message suggests unpickling without checks, which would run any code in the file.
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        found = f"an object of {named[1]}" if named else "not a file of torch.save, or it holds more than tensors"
        raise ModelError(f"{path} cannot be read as weights", found=found, hint=SAVE_PLAIN) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError, KeyError, TypeError) as error:
        found = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ModelError(f"{path} cannot be read as weights", found=found, hint=SAVE_PLAIN) from None


def _stand_ins(names: Iterable[str]) -> list[tuple[Any, str]]:
    """For each class in a file that a training script may well save, what is built in its stead."""
    known = [name for name in names if name in _BUILTINS or name.partition(".")[0] in _BYSTANDERS]
    return [(_STANDS_FOR.get(name, _Inert), name) for name in known]


def whole_model(path: Path, module: str) -> ModelError:
    """The error for a file with a network of a class `module`, and not its weights alone."""
    return ModelError(
        f"{path} holds a whole pickled model, which edgekd never unpickles: that would run code in the file",
        found=f"an object of {module}",
        hint="save its weights alone, in the program that made it: "
        f'torch.save(model.state_dict(), "{path.stem}-weights.pth")',
    )
