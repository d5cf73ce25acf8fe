"""Builds a bundle's engines on the device that will run them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekd.errors import BackendError, UnknownNameError, UsageError, whole_number
from edgekd.runtime import engine_cache
from edgekd.runtime.backends import (
    Backend,
    BuildOptions,
    BuiltEngine,
    EngineBuilder,
    Progress,
    all_backends,
    builders,
    choose,
)
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
        variants: by name; None: all that the backend accepts.
        backend: by name; None: the first that builds engines here.
        options: of the build.
        progress: called with (engines done, engines in total, the next variant).

    Returns:
        One engine per variant, in order.

    Raises:
        UsageError: options out of range, a backend that builds no engines, or a variant that it does not accept.
        UnknownNameError: no such backend or variant.
        BundleError: not a bundle, an incomplete one, or a changed file.
        BackendError: the engine is not available here, cannot run a variant, or the cache cannot be written.
    """
    chosen_options = options or BuildOptions()
    _check_options(chosen_options)
    manifest = read(bundle)
    engine, builder = _builder(backend)
    chosen = _chosen(manifest, engine, variants)
    choose(manifest.graph(chosen[0]), engine.name)
    return builder.build(manifest, chosen, chosen_options, progress=progress)


def find(bundle: Path | str | None = None, *, cache: Path | None = None) -> list[Engine]:
    """The engines in the cache, of any device and version, the most recently requested one first.

    Args:
        bundle: only engines built from its graphs.
        cache: the cache's folder; None: the default.

    Raises:
        BundleError: not a bundle, an incomplete one, or a changed file.
    """
    engines = engine_cache.find(cache)
    if bundle is None:
        return engines
    manifest = read(bundle)
    graphs = {manifest.graph_sha256(name) for name in manifest.variants}
    return [engine for engine in engines if engine.identity.graph in graphs]


def _builder(name: str | None) -> tuple[Backend, EngineBuilder]:
    """The named backend, or the first available one; where none is, the first, which reports why."""
    candidates = [(each, each.engines) for each in all_backends() if each.engines is not None]
    if name is None:
        return (builders() or candidates)[0]
    named = find_backend(name)
    if named.engines is None:
        allowed = ", ".join(backend.name for backend, _ in candidates)
        raise UsageError(f"{named.title} runs a bundle's graphs directly and does not build engines", allowed=allowed)
    return named, named.engines


def _chosen(manifest: BundleManifest, backend: Backend, variants: Sequence[str] | None) -> tuple[str, ...]:
    runs = backend.activations(None)
    accepted = tuple(name for name in manifest.preferred(backend.name) if manifest.variants[name].activations in runs)
    for name in variants or ():
        if name not in manifest.variants:
            raise UnknownNameError(f"variant of {manifest.path}", name, manifest.variants)
        if name not in accepted:
            raise UsageError(
                f"{backend.title} does not accept the variant {name}",
                found=f"activations in {manifest.variants[name].activations}",
                allowed=", ".join(accepted),
            )
    if not accepted:
        raise BackendError(
            f"{backend.title} accepts no variant of {manifest.path}",
            found=", ".join(f"{name}: {record.activations}" for name, record in manifest.variants.items()),
            allowed=f"activations in {', '.join(runs)}",
            hint="export the bundle again with other variants",
        )
    return tuple(dict.fromkeys(variants)) if variants else accepted


def _check_options(options: BuildOptions) -> None:
    if not whole_number(options.opt_batch, "opt_batch") <= whole_number(options.max_batch, "max_batch"):
        raise UsageError(
            "the batch size to optimise for must be between 1 and the largest batch size",
            found=f"--opt-batch {options.opt_batch}, --max-batch {options.max_batch}",
        )
    if options.workspace_mb is not None:
        whole_number(options.workspace_mb, "workspace_mb")
