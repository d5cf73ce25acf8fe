"""Build a bundle's engines on the device that will run them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import BackendError, UnknownNameError, UsageError
from edgekd.runtime import engine_cache
from edgekd.runtime.backends import _cuda, _tensorrt_build, choose, tensorrt
from edgekd.runtime.bundle import BundleManifest, read
from edgekd.runtime.engine_cache import Engine, Identity

Progress = Callable[[int, int, str], None]

_ENGINE = "tensorrt"
# Made for ONNX Runtime on x86: unsigned activations, which TensorRT rejects.
_NEVER = "int8-x64"
# Part of every engine's identity: raise it where a change here makes another engine from the same options.
_BUILDER = 1


@dataclass(frozen=True)
class BuiltEngine:
    """One engine in the cache; `seconds` is what building it took, now or, where `reused`, when it was built."""

    variant: str
    path: Path
    reused: bool
    seconds: float
    size_bytes: int
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


def build(
    bundle: Path | str,
    variants: Sequence[str] | None = None,
    *,
    max_batch: int = 8,
    opt_batch: int = 1,
    workspace_mb: int | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[BuiltEngine]:
    """Build an engine a variant with TensorRT on the first GPU, or take it from the cache.

    Args:
        bundle: its folder.
        variants: by name; None: all that TensorRT takes.
        max_batch: the largest batch that the engines take.
        opt_batch: the batch that they are made fastest for.
        workspace_mb: memory that a layer may use, in MiB; None: as much as the GPU has.
        cache: where engines lie; None: edgekd/engines where the user's caches lie.
        progress: called with the number done, the number in all, and the variant that is next.

    Raises:
        UsageError: numbers that make no sense, or a variant that is not TensorRT's.
        UnknownNameError: no such variant.
        BundleError: no bundle there, an incomplete one, or a changed file.
        BackendError: no TensorRT or GPU, a variant that they cannot run, or a cache that cannot be written.
    """
    _check_numbers(max_batch, opt_batch, workspace_mb)
    manifest = read(bundle)
    chosen = _chosen(manifest, variants)
    choose(manifest.graph(chosen[0]), _ENGINE)
    device = _cuda.device()
    _check_precisions(manifest, chosen, device)
    trt = tensorrt.imported()
    found = []
    for done, variant in enumerate(chosen):
        if progress is not None:
            progress(done, len(chosen), variant)
        options = _tensorrt_build.Options(manifest.variants[variant].precision, opt_batch, max_batch, workspace_mb)
        found.append(_take_or_build(trt, manifest, variant, options, device, cache))
    return found


def find(bundle: Path | str | None = None, *, cache: Path | None = None) -> list[Engine]:
    """The engines in the cache, of any device and version, the one that was asked for last first.

    Args:
        bundle: only those built from its graphs.

    Raises:
        BundleError: no bundle there, an incomplete one, or a changed file.
    """
    engines = engine_cache.find(cache)
    if bundle is None:
        return engines
    manifest = read(bundle)
    graphs = {manifest.graph_sha256(name) for name in manifest.variants}
    return [engine for engine in engines if engine.identity.graph in graphs]


def _take_or_build(
    trt: Any,
    manifest: BundleManifest,
    variant: str,
    options: _tensorrt_build.Options,
    device: _cuda.Device,
    cache: Path | None,
) -> BuiltEngine:
    identity = Identity(
        graph=manifest.graph_sha256(variant),
        gpu=device.name,
        compute_capability=engine_cache.capability(device),
        tensorrt=trt.__version__,
        options={**asdict(options), "builder": _BUILDER},
    )
    if (engine := engine_cache.take(identity, cache)) is not None:
        return BuiltEngine(variant, engine.path, True, engine.seconds, engine.size_bytes)
    timing = engine_cache.timing_file(device, trt.__version__, cache)
    begin = time.monotonic()
    plan = _tensorrt_build.build(
        trt,
        tensorrt.new_log(trt),
        manifest.graph(variant),
        options,
        timings=timing.read_bytes() if timing.is_file() else b"",
    )
    seconds = time.monotonic() - begin
    engine_cache.write_atomically(timing, plan.timings)
    engine = engine_cache.put(identity, plan.engine, seconds=seconds, device=device, cache=cache)
    note = f"{timing} was damaged or of another device and was begun anew" if plan.timings_replaced else None
    return BuiltEngine(variant, engine.path, False, engine.seconds, engine.size_bytes, note)


def _chosen(manifest: BundleManifest, variants: Sequence[str] | None) -> tuple[str, ...]:
    takes = tuple(name for name in manifest.preferred(_ENGINE) if name != _NEVER)
    for name in variants or ():
        if name not in manifest.variants:
            raise UnknownNameError(f"variant of {manifest.path}", name, manifest.variants)
        if name not in takes:
            reason = "it is made for ONNX Runtime on x86" if name == _NEVER else None
            raise UsageError(f"TensorRT does not take the variant {name}", found=reason, allowed=", ".join(takes))
    if not takes:
        raise BackendError(
            f"TensorRT takes no variant of {manifest.path}",
            found=", ".join(manifest.variants),
            allowed=", ".join(tensorrt.VARIANTS),
            hint="export the bundle again with one of these",
        )
    return tuple(dict.fromkeys(variants)) if variants else takes


def _check_precisions(manifest: BundleManifest, variants: Sequence[str], device: _cuda.Device) -> None:
    for name in variants:
        precision = manifest.variants[name].precision
        if precision not in _tensorrt_build.PRECISIONS:
            raise BackendError(
                f"no engine can be built from {manifest.graph(name)}",
                found=f"precision {precision}",
                allowed=", ".join(_tensorrt_build.PRECISIONS),
            )
        if precision == "int8" and not device.has_int8:
            raise BackendError(
                f"this GPU cannot compute in int8, which the variant {name} needs",
                found=f"{device.name}, compute capability {engine_cache.capability(device)}",
                allowed="compute capability 6.1, or 7.0 and up",
                hint="build the other variants: --variant fp16",
            )


def _check_numbers(max_batch: int, opt_batch: int, workspace_mb: int | None) -> None:
    if not 1 <= opt_batch <= max_batch:
        raise UsageError(
            "the batch that engines are made for lies between 1 and the largest",
            found=f"--opt-batch {opt_batch}, --max-batch {max_batch}",
        )
    if workspace_mb is not None and workspace_mb < 1:
        raise UsageError("the workspace is whole MiB from 1", found=workspace_mb)
