"""What edgekd can do on this machine. Engines are imported in processes of their own, because an import may crash."""

from __future__ import annotations

import platform
import re
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgekd.bench.emulation import emulation
from edgekd.errors import BackendError
from edgekd.runtime import processor
from edgekd.runtime.backends import Backend, all_backends
from edgekd.runtime.cores import usable_cores
from edgekd.runtime.importing import require_importable
from edgekd.units import size

_WORKSTATION = ("torch", "torchvision", "timm", "accelerate", "safetensors", "onnx", "onnxscript")
_ENOUGH_BYTES = 10e9


@dataclass(frozen=True)
class Finding:
    """One item that was examined; `hint` is what to do where it is missing."""

    what: str
    found: str
    ok: bool
    hint: str | None = None


def examine() -> list[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    return [
        _machine(),
        _processor(),
        Finding("python", platform.python_version(), True),
        Finding(
            "disk",
            f"{size(free)} free here",
            free > _ENOUGH_BYTES,
            None if free > _ENOUGH_BYTES else "PyTorch with CUDA takes 6 GB",
        ),
        _workstation(),
        _gpu(),
        *map(_backend, all_backends()),
    ]


def _machine() -> Finding:
    found = f"{platform.machine()}, {usable_cores()} usable cores"
    if (sign := emulation()) is None:
        return Finding("machine", found, True)
    return Finding("machine", f"{found}, emulated: {sign}", False, "latencies from here are not those of any hardware")


def _processor() -> Finding:
    sets = processor.instruction_sets()
    return Finding(
        "processor",
        f"{processor.name()}, instruction sets for int8: {processor.shown(sets)}",
        sets is not None,
        None if sets is not None else "the kernel does not list them: whether int8 is fast here, `edgekd bench` shows",
    )


def _workstation() -> Finding:
    versions = {name: _version(name) for name in _WORKSTATION}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Finding(
            "workstation",
            f"not installed: {', '.join(missing)}",
            False,
            "for `edgekd run`: pip install 'edgekd[train]'",
        )
    return Finding("workstation", ", ".join(f"{name} {version}" for name, version in versions.items()), True)


def _gpu(root: Path = Path("/")) -> Finding:
    """Reads the system's files under `root`, because CUDA or NVML may be what is missing."""
    driver = root / "proc/driver/nvidia/version"
    tegra = root / "etc/nv_tegra_release"
    if tegra.exists():
        return Finding("gpu", f"Jetson, {tegra.read_text().splitlines()[0].strip('# ')}", True)
    if driver.exists():
        line = driver.read_text().partition("\n")[0]
        release = re.search(r"\d+\.\d+(\.\d+)?", line)
        models = [
            text.partition("Model:")[2].partition("\n")[0].strip()
            for text in (each.read_text() for each in sorted(driver.parent.glob("gpus/*/information")))
        ]
        named = ", ".join(model for model in models if model) or "NVIDIA GPU"
        return Finding("gpu", f"{named}, driver {release[0] if release else line}", True)
    return Finding("gpu", "no NVIDIA driver: training runs on the CPU", False)


def _backend(backend: Backend) -> Finding:
    if (reason := backend.available()) is not None:
        return Finding(backend.name, reason, False)
    try:
        require_importable(backend)
    except BackendError as error:
        return Finding(backend.name, f"{error.what}: {error.found}", False, error.hint)
    return Finding(backend.name, f"{backend.title} {backend.version() or ''}".rstrip(), True)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
