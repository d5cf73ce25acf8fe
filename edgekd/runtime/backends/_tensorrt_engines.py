"""A bundle's TensorRT engines: built on the first GPU into the engine cache, and found there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from edgekd.errors import BackendError
from edgekd.runtime import engine_cache
from edgekd.runtime.backends import BuildOptions, BuiltEngine, Progress, _cuda, _tensorrt_build
from edgekd.runtime.bundle import BundleManifest
from edgekd.runtime.engine_cache import Identity
from edgekd.runtime.gpu import Gpu

NAME = "tensorrt"
# Part of every engine's identity; increased when a change here makes another engine from the same options.
_BUILDER = 2


def build(
    manifest: BundleManifest, variants: Sequence[str], options: BuildOptions, *, progress: Progress | None = None
) -> list[BuiltEngine]:
    """Build one engine per variant, or take it from the cache.

    Raises:
        BackendError: no TensorRT or GPU, they cannot run a variant, or the cache cannot be written.
    """
    gpu = _cuda.device()
    _check_precisions(manifest, variants, gpu)
    trt = import_tensorrt()
    engines = []
    for done, variant in enumerate(variants):
        if progress is not None:
            progress(done, len(variants), variant)
        engines.append(_take_or_build(trt, manifest, variant, options, gpu))
    return engines


def built(manifest: BundleManifest) -> dict[str, Path]:
    """The cached engines that this TensorRT version built on this kind of GPU from the bundle's graphs, by variant.

    Of several engines of one variant, the most recently requested one.

    Raises:
        BackendError: no GPU, or there are engines but TensorRT cannot be imported.
    """
    wanted = {name: (manifest.graph_sha256(name), record.precision) for name, record in manifest.variants.items()}
    graphs = {graph for graph, _ in wanted.values()}
    identities = ((entry.path, entry.identity) for entry in engine_cache.find(device=_cuda.device()))
    entries = [(path, each) for path, each in identities if each.engine == NAME and each.graph in graphs]
    if not entries:
        return {}
    version = import_tensorrt().__version__
    found: dict[tuple[str, str], Path] = {}
    for path, identity in entries:
        if identity.version == version:
            found.setdefault((identity.graph, str(identity.options.get("precision"))), path)
    return {name: found[key] for name, key in wanted.items() if key in found}


def device() -> Mapping[str, Any]:
    """The GPU that engines are built for: its name and compute capability.

    Raises:
        BackendError: there is no GPU.
    """
    gpu = _cuda.device()
    return {"gpu": gpu.name, "capability": gpu.compute_capability}


def import_tensorrt() -> Any:
    """Import TensorRT. CUDA must be checked before: TensorRT crashes without a GPU.

    Raises:
        BackendError: it or one of its libraries cannot be loaded.
    """
    try:
        return import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise BackendError(
            "TensorRT's Python package cannot be imported",
            found=f"{type(error).__name__}: {error}",
            hint="its libraries must be of the same version; in a container on a Jetson, of the host's L4T release",
        ) from None


def new_log(trt: Any) -> Any:
    """A logger that keeps the last error in `error` and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.error = "no reason given"

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.error = message[:300]

    return Log()


def _take_or_build(
    trt: Any,
    manifest: BundleManifest,
    variant: str,
    options: BuildOptions,
    device: Gpu,
) -> BuiltEngine:
    cache, precision = options.cache, manifest.variants[variant].precision
    builder_options = _tensorrt_build.Options(precision, options.opt_batch, options.max_batch, options.workspace_mb)
    identity = Identity(
        graph=manifest.graph_sha256(variant),
        gpu=device.name,
        compute_capability=device.capability,
        engine=NAME,
        version=trt.__version__,
        options={**asdict(builder_options), "builder": _BUILDER},
    )
    if (stored := engine_cache.take(identity, cache)) is not None:
        return BuiltEngine(variant, stored.path, True, stored.seconds, stored.size_bytes)
    timing = engine_cache.timing_file(device, NAME, trt.__version__, cache)
    begin = time.monotonic()
    plan = _tensorrt_build.build(
        trt,
        new_log(trt),
        manifest.graph(variant),
        builder_options,
        timings=timing.read_bytes() if timing.is_file() else b"",
    )
    seconds = time.monotonic() - begin
    engine_cache.write_atomically(timing, plan.timings)
    stored = engine_cache.put(identity, plan.engine, seconds=seconds, device=device, cache=cache)
    note = f"{timing} was damaged or of another device, and was replaced" if plan.timings_replaced else None
    return BuiltEngine(variant, stored.path, False, stored.seconds, stored.size_bytes, note)


def _check_precisions(manifest: BundleManifest, variants: Sequence[str], device: Gpu) -> None:
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
                found=f"{device.name}, compute capability {device.capability}",
                allowed="compute capability 6.1, or 7.0 and later",
                hint="build the other variants: --variant fp16",
            )
