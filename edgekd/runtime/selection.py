"""Which engine takes a bundle here, and which file of each variant: the one place that decides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from edgekd import plugins
from edgekd.errors import BackendError, BundleError, UnknownNameError
from edgekd.runtime.backends import choose
from edgekd.runtime.bundle import BundleManifest


@dataclass(frozen=True)
class Selection:
    """A backend, and for each variant that it runs the file to open: the preferred variant first, never none."""

    backend: str
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
    name = choose(manifest.graph(variant or next(iter(manifest.variants))), backend)
    module = plugins.load("backend", name)
    if _builds(module):
        return Selection(name, _built(name, module, manifest, variant) or _raise_unbuilt(manifest, name, variant))
    chosen = (variant,) if variant is not None else manifest.preferred(name)
    if not chosen:
        raise BackendError(
            f"{name} runs no variant of {manifest.path}",
            found=", ".join(manifest.variants),
            allowed=", ".join(module.VARIANTS),
            hint="leave the backend out, or name a variant that it runs",
        )
    return Selection(name, {each: manifest.graph(each) for each in chosen})


def _built_here(manifest: BundleManifest, variant: str | None) -> Selection | None:
    for name in plugins.names("backend"):
        module = plugins.load("backend", name)
        if not _builds(module) or module.why_not() is not None:
            continue
        try:
            files = _built(name, module, manifest, variant)
        except BackendError:
            continue  # an engine whose libraries do not load is not usable here, as one that is not installed
        if files:
            return Selection(name, files)
    return None


def _builds(module: ModuleType) -> bool:
    return hasattr(module, "built")


def _built(name: str, module: ModuleType, manifest: BundleManifest, variant: str | None) -> dict[str, Path]:
    found: dict[str, Path] = module.built(manifest)
    wanted = (variant,) if variant is not None else manifest.preferred(name)
    return {each: found[each] for each in wanted if each in found}


def _raise_unbuilt(manifest: BundleManifest, backend: str, variant: str | None) -> dict[str, Path]:
    option = f" --variant {variant}" if variant is not None else ""
    raise BackendError(
        f"no engine was built from this bundle on this device{f' for {variant}' if variant is not None else ''}",
        allowed=f"an engine that {backend} as it is installed here built on this GPU",
        hint=f"edgekd build {manifest.path}{option}",
    )
