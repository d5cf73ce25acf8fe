"""What this machine is good at: the arithmetic to train in, and the allocator."""

from __future__ import annotations

import ctypes
import functools
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from torch import nn

from edgekd.errors import UsageError
from edgekd.quantization.placement import activation_quantizers
from edgekd.settings import Precision

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def best_device() -> torch.device:
    """Where Accelerate puts a training: the GPU where there is one."""
    device: torch.device = Accelerator().device
    return device


def resolve_precision(
    wanted: Precision, model: nn.Module, device: torch.device, *, inference: bool = False
) -> Literal["fp32", "bf16"]:
    """What "auto" means for a network on a device.

    On a GPU bf16 where it has it. On a CPU with bf16 instructions bf16 for every forward pass, and for training
    only without depthwise convolutions: those train slower in bf16 than in fp32. With int8 quantizers always fp32:
    bf16 has too few digits for their grids.

    Raises:
        UsageError: bf16 is asked for by name on a GPU that does not have it, or for a network with quantizers.
    """
    cuda = device.type == "cuda"
    if activation_quantizers(model):
        if wanted == "bf16":
            raise UsageError("precision: bf16 is too coarse for a network with int8 quantizers", allowed="auto, fp32")
        return "fp32"
    if wanted == "bf16" and cuda and not torch.cuda.is_bf16_supported():
        raise UsageError("precision: bf16 needs a GPU that computes in bf16", allowed="auto, fp32")
    if wanted != "auto":
        return wanted
    if cuda:
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if cpu_has_bf16() and (inference or not has_depthwise(model)) else "fp32"


def autocast(precision: Literal["fp32", "bf16"], device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def has_depthwise(model: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1 for m in model.modules())


@functools.cache
def cpu_has_bf16() -> bool:
    """Whether the kernel reports bf16 arithmetic: without it PyTorch emulates bf16, slowly."""
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


@functools.cache
def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks: every step asks for the same large ones again.

    Without it the kernel zeroes fresh pages for each activation, which doubles the time of a small network's step.
    Other C libraries do not have mallopt; there it is left out.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
