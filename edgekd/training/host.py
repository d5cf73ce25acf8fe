"""The machine that a training runs on: its device, the precision to use, and the allocator."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Literal

import psutil
import torch
from accelerate import Accelerator
from torch import nn

from edgekd.bench.sensors import cpu_times, others_share
from edgekd.errors import UsageError
from edgekd.quantization.placement import activation_quantizers
from edgekd.recipe.settings import Precision
from edgekd.runtime.cores import usable_cores
from edgekd.runtime.preprocess import InputShape
from edgekd.wording import counted

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Of a core: what any machine does beside the training.
_HARDLY_USED = 0.5
_LEAST_SECONDS = 0.3
_LOG = logging.getLogger(__name__)


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


class Load:
    """What other processes use of the machine's cores, from when this is made or begun anew."""

    def __init__(self) -> None:
        self.cores = psutil.cpu_count() or 1
        self._start, self._before = time.monotonic(), cpu_times()
        self._last: float | None = None

    def begin_anew(self) -> None:
        """From now on; what was before counts until enough time has passed."""
        if self.known:
            self._last = self.used()
            self._start, self._before = time.monotonic(), cpu_times()

    def wait(self) -> None:
        """Wait until anything is known, less than a second."""
        if self._last is None:
            time.sleep(max(0.0, _LEAST_SECONDS - (time.monotonic() - self._start)))

    @property
    def known(self) -> bool:
        """Whether enough time has passed: the kernel counts in hundredths of a second."""
        return time.monotonic() - self._start >= _LEAST_SECONDS

    def used(self) -> float:
        """In cores; 0 as long as nothing is known."""
        if not self.known:
            return self._last or 0.0
        return others_share(self._before, cpu_times()) * self.cores

    def room(self, threads: int) -> int:
        """How many of these threads have a core of their own, at least one."""
        free = self.cores - self.used()
        return threads if free > threads - _HARDLY_USED else max(1, int(free))

    def tell(self, threads: int, chosen: int) -> None:
        """Log a warning if not all of these threads have a core of their own, with the number that was chosen."""
        if self.room(threads) < threads:
            used = f"{max(1, round(self.used()))} of its {counted(self.cores, 'core')}"
            _LOG.warning("the machine is busy: other processes use %s; working on %s", used, in_words(chosen))


# What PyTorch was set to, in the context of spare_threads().
_all_threads: ContextVar[int | None] = ContextVar("all_threads", default=None)


def all_threads() -> int:
    """PyTorch's number of threads, which OMP_NUM_THREADS sets; without it at most one per usable core."""
    known = _all_threads.get() or torch.get_num_threads()
    return known if "OMP_NUM_THREADS" in os.environ else min(known, usable_cores())


@contextmanager
def threads(count: int) -> Iterator[None]:
    """A context in which PyTorch runs on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def spare_threads(load: Load) -> Iterator[None]:
    """A context in which PyTorch runs on all_threads(), or on as many as other processes have left cores for.

    Args:
        load: of the time before; begun anew here.
    """
    count = chosen = all_threads()
    if count > 1 and "OMP_NUM_THREADS" not in os.environ:
        load.wait()
        chosen = load.room(count)
    load.tell(count, chosen)
    load.begin_anew()
    token = _all_threads.set(count)
    try:
        with threads(chosen):
            yield
    finally:
        _all_threads.reset(token)


def in_words(threads: int) -> str:
    return counted(threads, "thread")


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
