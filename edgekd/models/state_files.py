"""Weights as training scripts save them: which of a file's tensors are the network's. No code in a file runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekd.errors import ModelError, UsageError
from edgekd.models.pickled import Contents, contents_of
from edgekd.models.torch_files import SAVE_PLAIN, read, whole_model
from edgekd.models.weights import NewHead, new_head, problems_of, unfitting

# Wrappers that put a part into the middle of names, and counters of profilers.
_INSERTED = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_COUNTERS = re.compile(r"(^|\.)(n_averaged|total_ops|total_params)$")
# The counter and the prefix of torch.optim.swa_utils.AveragedModel.
_AVERAGED_COUNT, _AVERAGED_PREFIX = re.compile(r"(^|\.)n_averaged$"), "module."
_AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged|shadow)([._]|$)")
_DEEPEST = 4


@dataclass(frozen=True)
class Chosen:
    """Tensors of a file that fit a network.

    Attributes:
        label: where they stand in the file, e.g. "state_dict.model"; "" for the whole file.
        state: by the network's names.
        head: set where all fits but the last layer's number of classes.
        averaged: whether they are taken as an average, and not by a key.
        over: the label of weights that were there too, and were passed over for averaged ones.
        unused: the label of averaged weights that do not fit.
    """

    label: str
    state: dict[str, Tensor]
    head: NewHead | None
    averaged: bool = False
    over: str | None = None
    unused: str | None = None

    @property
    def warning(self) -> str | None:
        if self.unused is not None:
            return (
                f"The file has averaged weights under {self.unused}, which do not fit this network: others were taken."
            )
        if self.over is None:
            taken = f"The averaged weights{f' ({self.label})' if self.label else ''} of the file were taken"
            return f"{taken}: it has no others that fit." if self.averaged else None
        other = f"key: {self.over} takes the others" if self.over else "the others are at the top of the file"
        return f"The averaged weights ({self.label}) of the file were taken; {other}."


def choose(network: nn.Module, path: Path, classes: int, *, key: str | None = None) -> Chosen:
    """The tensors in a file that fit a network.

    A file may nest state dicts, with whatever prefix its trainer gives their names (`module.`, `model.`, `backbone.`,
    `_orig_mod.`, …). Where averaged weights (EMA, SWA) fit as well as others, they are taken.

    Args:
        network: not changed.
        path: a .safetensors file, or one of torch.save.
        classes: the number of the network's classes.
        key: which of the file's state dicts, or which prefix in one; None: the one that fits.

    Raises:
        ModelError: no such file, a damaged one, one with objects that could be code, or none or several that fit.
        UsageError: the file has nothing under `key`.
    """
    if not path.is_file():
        raise ModelError(
            f"{path} does not exist", allowed="a checkpoint folder, .safetensors, or a state dict (.pth, .pt)"
        )
    contents = Contents() if path.suffix == ".safetensors" else contents_of(path)
    raw = read(path, contents)
    found = dict(_state_dicts(raw))
    if contents.module is not None and not _has_any_of(network, found):
        raise whole_model(path, contents.module)
    if not found:
        raise ModelError(f"{path} does not hold a state dict", found="no tensors by name", hint=SAVE_PLAIN)
    labelled = [(label, state) for label, state in _scopes(found, network) if key is None or _within(label, key)]
    if key is not None and not labelled:
        raise UsageError(f"{path} has nothing under key: {key}", allowed=", ".join(sorted(filter(None, found))) or None)
    fits = [fit for label, state in labelled if (fit := _fit(network, label, state, classes)) is not None]
    fits += _completed(network, labelled, fits)
    if not fits:
        raise _unfitting(network, path, labelled or list(found.items()))
    fits = [fit for fit in fits if fit.head is None] or fits
    counted = list(_counted_averages(raw))
    averaged = [fit for fit in fits if _AVERAGED.search(fit.label.lower()) or _is_in(fit.label, counted)]
    plain = [fit for fit in fits if fit not in averaged]
    candidates = averaged or plain
    first = candidates[0]
    if any(not _equal(first.state, other.state) for other in candidates[1:]):
        raise ModelError(
            f"{path} holds several state dicts that fit this network",
            found=", ".join(fit.label or "the names without a prefix" for fit in candidates),
            hint="choose one: set `key` beside `checkpoint`",
        )
    if averaged:
        return replace(first, averaged=key is None, over=plain[0].label if plain else None)
    return replace(first, unused=next(filter(None, chain(_averages(raw), counted)), None)) if key is None else first


def _completed(
    network: nn.Module, labelled: Sequence[tuple[str, dict[str, Tensor]]], fits: Sequence[Chosen]
) -> list[Chosen]:
    """Averaged parameters without buffers, with the buffers of the weights beside them."""
    wanted = {name for name, _ in network.named_parameters()}
    plain = next((fit for fit in fits if fit.head is None and not _AVERAGED.search(fit.label.lower())), None)
    if plain is None:
        return []
    found = []
    for label, state in labelled:
        if _AVERAGED.search(label.lower()) and wanted <= state.keys() and not any(fit.label == label for fit in fits):
            fit = _fit(network, label, {**plain.state, **{name: state[name] for name in wanted}}, 0)
            found += [fit] if fit is not None else []
    return found


def _averages(value: object, label: str = "", depth: int = 0) -> Iterator[str]:
    """Where a file has averaged weights, by the names of its parts."""
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        return
    for name, each in value.items():
        place = f"{label}.{name}".lstrip(".")
        inner = each.values() if isinstance(each, Mapping) else each if isinstance(each, (list, tuple)) else (each,)
        if isinstance(name, str) and _COUNTERS.search(name):
            continue
        if isinstance(name, str) and _AVERAGED.search(name.lower()) and any(isinstance(one, Tensor) for one in inner):
            yield place
        else:
            yield from _averages(each, place, depth + 1)


def _counted_averages(value: object, label: str = "", depth: int = 0) -> Iterator[str]:
    """Where a file has the weights of PyTorch's AveragedModel, which counts what it averages."""
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        return
    names = [
        _INSERTED.sub("", name) for name, each in value.items() if isinstance(name, str) and isinstance(each, Tensor)
    ]
    for counter in filter(_AVERAGED_COUNT.search, names):
        before = counter.removesuffix("n_averaged")
        wrapped = any(name.startswith(f"{before}{_AVERAGED_PREFIX}") for name in names)
        yield f"{label}.{before}{_AVERAGED_PREFIX if wrapped else ''}".strip(".")
    for name, each in value.items():
        yield from _counted_averages(each, f"{label}.{name}".lstrip("."), depth + 1)


def _is_in(label: str, places: Sequence[str]) -> bool:
    return any(label == place or (place and label.startswith(f"{place}.")) for place in places)


def _has_any_of(network: nn.Module, found: Mapping[str, dict[str, Tensor]]) -> bool:
    """Whether any tensor in a file has the name of one of the network's, behind whatever prefix."""
    own = set(network.state_dict())
    return any(own & state.keys() for _, state in _scopes(found, network))


def _state_dicts(value: object, label: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """All mappings from names to tensors in a file, by their place."""
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        return
    tensors = {str(name): each for name, each in value.items() if isinstance(each, Tensor) and isinstance(name, str)}
    if tensors:
        yield label, {_INSERTED.sub("", name): each for name, each in tensors.items() if not _COUNTERS.search(name)}
    for name, each in value.items():
        yield from _state_dicts(each, f"{label}.{name}".lstrip("."), depth + 1)


def _scopes(found: Mapping[str, dict[str, Tensor]], network: nn.Module) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every state dict as it is, and without each prefix behind which the network's first parameter stands."""
    probe = next(iter(network.state_dict()))
    for label, state in found.items():
        prefixes = {name.removesuffix(probe) for name in state if name == probe or name.endswith(f".{probe}")}
        for prefix in sorted(prefixes or {""}, key=lambda each: (len(each), each)):
            place = ".".join(filter(None, (label, prefix.rstrip("."))))
            yield place, {name.removeprefix(prefix): each for name, each in state.items() if name.startswith(prefix)}


def _within(label: str, key: str) -> bool:
    return label == key or label.startswith(f"{key}.") or label.endswith(f".{key}")


def _fit(network: nn.Module, label: str, state: dict[str, Tensor], classes: int) -> Chosen | None:
    head = new_head(network, state, classes)
    return Chosen(label, state, head) if head is not None or not problems_of(network, state) else None


def _unfitting(network: nn.Module, path: Path, labelled: Sequence[tuple[str, dict[str, Tensor]]]) -> ModelError:
    own = set(network.state_dict())
    label, state = max(labelled, key=lambda each: len(own & set(each[1])))
    return unfitting(network, state, origin=path, label=label)


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are alike, also where both have NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one, other) or (
        one.is_floating_point() and torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)
    )
