"""Selects the backend that runs a bundle on this machine, and the file of each variant."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekd import plugins
from edgekd.errors import BackendError, BundleError, UnknownNameError
from edgekd.runtime import processor
from edgekd.runtime.backends import Backend, EngineBuilder, builders, choose
from edgekd.runtime.bundle import BundleManifest, EngineKey


@dataclass(frozen=True)
class Selection:
    """A backend, and the file to open for each variant that it runs: at least one, the preferred variant first.

    Attributes:
        doubt: why the bundle's measured order is not followed, a sentence; None: it is, or it would be the same.
    """

    backend: Backend
    files: Mapping[str, Path]
    doubt: str | None = None


def select(manifest: BundleManifest, backend: str | None = None, variant: str | None = None) -> Selection:
    """Select a backend and files for this machine.

    Args:
        manifest: the bundle.
        backend: by name; None: one that has built engines of this bundle here, else the first that opens its graphs.
        variant: only this one; None: all that the backend should run.

    Raises:
        UnknownNameError: no such backend or variant.
        BundleError: a bundle without variants.
        BackendError: no backend is available, it runs none of the variants, or nothing was built for it yet.
    """
    if not manifest.variants:
        raise BundleError(f"{manifest.path} has no variants", hint="export the bundle again")
    if variant is not None and variant not in manifest.variants:
        raise UnknownNameError(f"variant of {manifest.path}", variant, manifest.variants)
    if backend is None and (built := _built_here(manifest, variant)) is not None:
        return built
    chosen = choose(manifest.graph(variant or next(iter(manifest.variants))), backend)
    if chosen.engines is not None:
        found = _built(chosen, chosen.engines, manifest, variant)
        return Selection(chosen, found or _raise_unbuilt(manifest, chosen, variant))
    names, doubt = ((variant,), None) if variant is not None else _preferred(manifest, chosen.name)
    if not names:
        raise BackendError(
            f"{chosen.title} runs no variant of {manifest.path}",
            found=", ".join(f"{name}: {record.activations}" for name, record in manifest.variants.items()),
            allowed=f"activations in {', '.join(chosen.activations(platform.machine()))}",
            hint="do not set the backend, or set a variant that it runs",
        )
    return Selection(chosen, {name: manifest.graph(name) for name in names}, doubt)


def _preferred(manifest: BundleManifest, engine: str) -> tuple[tuple[str, ...], str | None]:
    """The order here, and why it is not the measured one where that is of a CPU with more instruction sets."""
    order, measured = manifest.preferred(engine), manifest.measured.get(EngineKey.here(engine))
    here = processor.instruction_sets()
    if measured is None or here is None:
        return order, None
    lacking = processor.deciding(measured.instruction_sets).difference(here)
    by_rule = manifest.preferred(engine, measured=False)
    if not lacking or by_rule == order:
        return order, None
    return by_rule, (
        f"Its order of variants was measured on {measured.cpu}, and this CPU, {processor.name()}, lacks instruction "
        f"sets for int8 that are there ({', '.join(sorted(lacking))}): the order by rule is used, {', '.join(by_rule)}."
    )


def _built_here(manifest: BundleManifest, variant: str | None) -> Selection | None:
    for backend, builder in builders():
        try:
            files = _built(backend, builder, manifest, variant)
        except BackendError:
            continue  # its libraries do not load here: the same as not installed
        if files:
            return Selection(backend, files)
    return None


def _built(backend: Backend, builder: EngineBuilder, manifest: BundleManifest, variant: str | None) -> dict[str, Path]:
    engines = builder.built(manifest)
    wanted = (variant,) if variant is not None else manifest.preferred(backend.name)
    return {each: engines[each] for each in wanted if each in engines}


def _raise_unbuilt(manifest: BundleManifest, backend: Backend, variant: str | None) -> dict[str, Path]:
    option = ("--variant", variant) if variant is not None else ()
    raise BackendError(
        f"no engine was built from this bundle on this device{f' for {variant}' if variant is not None else ''}",
        allowed=f"an engine built on this device with the installed version of {backend.title}",
        hint=plugins.command("build", str(manifest.path), *option),
    )
