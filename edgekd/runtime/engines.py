"""Build a bundle's engines on the device that will run them, in whichever backend builds engines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekd.errors import BackendError, UnknownNameError, UsageError
from edgekd.runtime import engine_cache
from edgekd.runtime.backends import Backend, BuildOptions, BuiltEngine, EngineBuilder, Progress, builders, choose, every
from edgekd.runtime.backends import find as find_backend
from edgekd.runtime.bundle import BundleManifest, read
from edgekd.runtime.engine_cache import Engine


def build(
    bundle: Path | str,
    variants: Sequence[str] | None = None,
    *,
    backend: str | None = None,
    options: BuildOptions | None = None,
    progress: Progress | None = None,
) -> list[BuiltEngine]:
    """Build one engine per variant on this device, or take it from the cache.

    Args:
        bundle: its folder.
        variants: by name; None: all that the engine takes.
        backend: the engine by name; None: the first that builds engines here.
        progress: called with the number done, the number in all, and the variant that is next.

    Raises:
        UsageError: options that make no sense, a backend that builds no engines, or a variant that it does not take.
        UnknownNameError: no such backend or variant.
        BundleError: no bundle there, an incomplete one, or a changed file.
        BackendError: no such engine here, a variant that it cannot run, or a cache that cannot be written.
    """
    asked = options or BuildOptions()
    _check_options(asked)
    manifest = read(bundle)
    engine, builder = _builder(backend)
    chosen = _chosen(manifest, engine, variants)
    choose(manifest.graph(chosen[0]), engine.name)
    return builder.build(manifest, chosen, asked, progress=progress)


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


def _builder(name: str | None) -> tuple[Backend, EngineBuilder]:
    """The named backend, or the first that can be used here; where none can, the first, which gives its reason."""
    able = [(each, each.engines) for each in every() if each.engines is not None]
    if name is None:
        return (builders() or able)[0]
    named = find_backend(name)
    if named.engines is None:
        allowed = ", ".join(backend.name for backend, _ in able)
        raise UsageError(f"{named.title} runs a bundle's graphs and builds no engines", allowed=allowed)
    return named, named.engines


def _chosen(manifest: BundleManifest, backend: Backend, variants: Sequence[str] | None) -> tuple[str, ...]:
    runs = backend.activations(None)
    takes = tuple(name for name in manifest.preferred(backend.name) if manifest.variants[name].activations in runs)
    for name in variants or ():
        if name not in manifest.variants:
            raise UnknownNameError(f"variant of {manifest.path}", name, manifest.variants)
        if name not in takes:
            raise UsageError(
                f"{backend.title} does not take the variant {name}",
                found=f"activations in {manifest.variants[name].activations}",
                allowed=", ".join(takes),
            )
    if not takes:
        raise BackendError(
            f"{backend.title} takes no variant of {manifest.path}",
            found=", ".join(f"{name}: {record.activations}" for name, record in manifest.variants.items()),
            allowed=f"activations in {', '.join(runs)}",
            hint="export the bundle again with other variants",
        )
    return tuple(dict.fromkeys(variants)) if variants else takes


def _check_options(options: BuildOptions) -> None:
    if not 1 <= options.opt_batch <= options.max_batch:
        raise UsageError(
            "the batch that engines are made for lies between 1 and the largest",
            found=f"--opt-batch {options.opt_batch}, --max-batch {options.max_batch}",
        )
    if options.workspace_mb is not None and options.workspace_mb < 1:
        raise UsageError("the workspace is whole MiB from 1", found=options.workspace_mb)
