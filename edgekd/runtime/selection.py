"""Which engine takes a bundle here, and which file of each variant: the one place that decides it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import BackendError, BundleError, UnknownNameError
from edgekd.runtime.backends import Backend, EngineBuilder, builders, choose
from edgekd.runtime.bundle import BundleManifest


@dataclass(frozen=True)
class Selection:
    """A backend, and for each variant that it runs the file to open: the preferred variant first, never none."""

    backend: Backend
    files: Mapping[str, Path]


def select(manifest: BundleManifest, backend: str | None = None, variant: str | None = None) -> Selection:
    """Choose for this machine.

    Args:
        backend: by name; None: one that has built engines of this bundle here, else the first that opens its graphs.
        variant: this one alone; None: all that the backend should run.

    Raises:
        UnknownNameError: no such backend or variant.
        BundleError: a bundle without variants.
        BackendError: no usable engine, one that runs none of the variants, or one that nothing was built for yet.
    """
    if not manifest.variants:
        raise BundleError(f"{manifest.path} holds no variant", hint="export the bundle again")
    if variant is not None and variant not in manifest.variants:
        raise UnknownNameError(f"variant of {manifest.path}", variant, manifest.variants)
    if backend is None and (built := _built_here(manifest, variant)) is not None:
        return built
    chosen = choose(manifest.graph(variant or next(iter(manifest.variants))), backend)
    if chosen.engines is not None:
        found = _built(chosen, chosen.engines, manifest, variant)
        return Selection(chosen, found or _raise_unbuilt(manifest, chosen, variant))
    names = (variant,) if variant is not None else manifest.preferred(chosen.name)
    if not names:
        raise BackendError(
            f"{chosen.title} runs no variant of {manifest.path}",
            found=", ".join(f"{name}: {record.activations}" for name, record in manifest.variants.items()),
            allowed=f"activations in {', '.join(chosen.activations(platform.machine()))}",
            hint="leave the backend out, or name a variant that it runs",
        )
    return Selection(chosen, {name: manifest.graph(name) for name in names})


def _built_here(manifest: BundleManifest, variant: str | None) -> Selection | None:
    for backend, builder in builders():
        try:
            files = _built(backend, builder, manifest, variant)
        except BackendError:
            continue  # an engine whose libraries do not load is not usable here, as one that is not installed
        if files:
            return Selection(backend, files)
    return None


def _built(backend: Backend, builder: EngineBuilder, manifest: BundleManifest, variant: str | None) -> dict[str, Path]:
    found = builder.built(manifest)
    wanted = (variant,) if variant is not None else manifest.preferred(backend.name)
    return {each: found[each] for each in wanted if each in found}


def _raise_unbuilt(manifest: BundleManifest, backend: Backend, variant: str | None) -> dict[str, Path]:
    option = f" --variant {variant}" if variant is not None else ""
    raise BackendError(
        f"no engine was built from this bundle on this device{f' for {variant}' if variant is not None else ''}",
        allowed=f"an engine that {backend.title} as it is installed here built on this device",
        hint=f"edgekd build {manifest.path}{option}",
    )
