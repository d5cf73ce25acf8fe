"""What stands in weights: types and values that a network can compute with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.wording import counted

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

_NAMED = 3
_VARIANCE, _COUNTER = "running_var", "num_batches_tracked"


def other_types(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors that would become other numbers in the network's type, such as the int8 steps of weights.

    Args:
        own: the network's tensors.
        state: tensors by the same names; others, and those of another shape, are passed over.
    """
    shared = [name for name in own if name in state and own[name].shape == state[name].shape]
    return [name for name in shared if not name.endswith(_COUNTER) and not _is_kept(state[name], own[name])]


def type_of(tensor: Tensor) -> str:
    """`int8`; `meta` of a tensor without data, and `sparse_coo` or the like of one that is not stored whole."""
    if tensor.is_meta:
        return "meta"
    kind = tensor.dtype if tensor.layout == torch.strided else tensor.layout
    return str(kind).removeprefix("torch.")


def _is_kept(given: Tensor, own: Tensor) -> bool:
    if given.is_meta or given.layout != torch.strided:
        return False
    if given.dtype == own.dtype or (given.dtype in FLOATS and own.dtype in FLOATS):
        return True
    # A tensor of several integers where the network has floats is one of quantized weights.
    if given.is_quantized or given.is_complex() or (own.is_floating_point() and given.ndim > 0):
        return False
    return torch.equal(given.to(own.dtype).to(given.dtype), given)


def check_values(model: nn.Module, state: Mapping[str, Tensor], *, origin: object) -> None:
    """Refuse values that no network computes with, before anything is trained or exported.

    Args:
        model: the network that the weights are for. A buffer with the value that the network was built with, such as a
            mask of -infinity, is a constant of the network and is not checked.
        state: tensors by its names.
        origin: where the state comes from, for the message.

    Raises:
        ModelError: a value is NaN or infinite in the network's own type, or a variance is negative.
    """
    own, parameters = model.state_dict(), {name for name, _ in model.named_parameters()}
    found = []
    for name, given in state.items():
        if name not in own or not own[name].is_floating_point():
            continue
        values = given.to(own[name])
        if (what := _problem(name, values)) is not None and (name in parameters or not torch.equal(values, own[name])):
            found.append(f"{name} has {what}")
    if found:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise ModelError(
            f"the weights of {origin} have values that no network computes with",
            found=f"in {len(found)} of {counted(len(state), 'tensor')}: {'; '.join(found[:_NAMED])}{more}",
            allowed="finite numbers, and variances (running_var) that are not negative",
            hint="take those of an earlier epoch, or others: the training diverged, or they are damaged",
        )


def _problem(name: str, values: Tensor) -> str | None:
    if bool(values.isnan().any()):
        return f"NaN in {int(values.isnan().sum())} of {counted(values.numel(), 'value')}"
    if bool(values.isinf().any()):
        return f"infinity in {int(values.isinf().sum())} of {counted(values.numel(), 'value')}"
    if name.rpartition(".")[2] == _VARIANCE and bool((values < 0).any()):
        return f"a negative variance in {int((values < 0).sum())} of {counted(values.numel(), 'channel')}"
    return None
