"""The machine that a training runs on: its device, the precision to use, and the allocator."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from torch import nn

from edgekd.errors import UsageError
from edgekd.quantization.placement import activation_quantizers
from edgekd.recipe.settings import Precision
from edgekd.runtime.preprocess import InputShape

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def best_device() -> torch.device:
    """The device that Accelerate chooses: the GPU where there is one."""
    device: torch.device = Accelerator().device
    return device


def resolve_precision(
    wanted: Precision, model: nn.Module, device: torch.device, *, inference: bool = False
) -> Literal["fp32", "bf16"]:
    """Resolve "auto" for a network on a device.

    On a GPU: bf16 where supported. On a CPU with bf16 instructions: bf16 for inference, and for training only without
    depthwise convolutions, which train slower in bf16 than in fp32. With int8 quantizers: always fp32, because bf16 is
    too coarse for their grids.

    Args:
        wanted: the recipe's setting.
        model: the network.
        device: where it runs.
        inference: whether only the forward pass runs.

    Raises:
        UsageError: `wanted` is bf16, and the GPU does not support it or the network has int8 quantizers.
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


def training_precision(
    wanted: Precision, model: nn.Module, device: torch.device, shape: InputShape
) -> Literal["fp32", "bf16"]:
    """Resolve "auto" for training on images of this size.

    On a CPU, PyTorch 2.15 does not write bf16 weight gradients where a convolution's stride is larger than its input:
    they are uninitialised memory. Such a network is trained in fp32.

    Raises:
        UsageError: as resolve_precision(), or `wanted` is bf16 where its gradients would be wrong.
    """
    precision = resolve_precision(wanted, model, device)
    if precision == "fp32" or device.type != "cpu" or (where := _outstridden(model, shape)) is None:
        return precision
    if wanted == "bf16":
        raise UsageError(
            f"precision: bf16 gives wrong gradients on a CPU for {where}",
            found=f"its stride is larger than its input at {shape} pixels",
            allowed="auto, fp32",
        )
    return "fp32"


def possible_precisions(
    model: nn.Module, device: torch.device, shape: InputShape
) -> tuple[Literal["fp32", "bf16"], ...]:
    """The precisions in which a network can be trained correctly on this device."""
    if activation_quantizers(model) or not cpu_has_bf16() or _outstridden(model, shape) is not None:
        return ("fp32",)
    return ("fp32", "bf16")


def _outstridden(model: nn.Module, shape: InputShape) -> str | None:
    """The first convolution whose stride is larger than its input; None where there is none."""
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Conv2d, tuple[torch.Tensor, ...]], None]:
        def hook(layer: nn.Conv2d, inputs: tuple[torch.Tensor, ...]) -> None:
            if any(side < stride for side, stride in zip(inputs[0].shape[-2:], layer.stride, strict=True)):
                found.append(name)

        return hook

    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(look(name)) for name, layer in layers]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def autocast(precision: Literal["fp32", "bf16"], device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def has_depthwise(model: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1 for m in model.modules())


@functools.cache
def cpu_has_bf16() -> bool:
    """Whether the CPU has bf16 instructions; without them PyTorch emulates bf16 slowly."""
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep freed memory, for the whole process, because every step allocates the same large blocks again.

    Without it the kernel zeroes fresh pages for each activation. An epoch of a plain loop took 6.55 s with it and
    12.44 s without (ResNet-8 x4 to ShuffleNetV2 x0.5, 2 cores of an AMD EPYC; docs/speed.md has smaller teachers).
    Does nothing where the C library has no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # Older versions accept at most 32 MiB; setting only the trim threshold would fix this one at 128 KiB.
        if mallopt(_M_MMAP_THRESHOLD, 1 << 30) or mallopt(_M_MMAP_THRESHOLD, 32 << 20):
            mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
