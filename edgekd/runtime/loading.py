"""Loads a bundle: the variant that its order prefers, if it gives the expected outputs on this machine."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from edgekd.errors import BackendError, BundleError, BundleWarning, EdgekdError, whole_number
from edgekd.runtime import processor, verified
from edgekd.runtime.backends import Session, fits
from edgekd.runtime.bundle import MANIFEST, BundleManifest, read
from edgekd.runtime.model import Model, deviates
from edgekd.runtime.selection import Selection, select
from edgekd.runtime.verified import Subject


def load(
    path: str | os.PathLike[str],
    *,
    backend: str | None = None,
    variant: str | None = None,
    threads: int | None = None,
) -> Model:
    """Load a bundle into an inference engine.

    Without `backend`, a backend with engines that `edgekd build` has built from this bundle on this device is used;
    otherwise the first available backend that opens its graphs. `Model.engine` tells which engine it is.

    A variant is run on the bundle's test vectors when it is first loaded on a machine; the result is remembered in the
    user's cache folder. Where its outputs deviate by more than its tolerance, or the engine fails, the next variant is
    loaded instead, with one BundleWarning that says why. A variant that was asked for by name is not replaced.

    Args:
        path: the bundle's folder.
        backend: by name; a backend that runs built engines uses only engines that were built here.
        variant: by name; None: the one that the bundle, or else the backend, prefers; where the backend runs built
            engines, among those that were built.
        threads: threads per operator; None: one per usable core.

    Raises:
        BundleError: not a bundle, an incomplete one, or a changed file; or the variant, or every variant, gives other
            outputs here than those in the bundle.
        BackendError: no backend is available, it refuses the graph, or no engine was built on this device yet.
        UnknownNameError: no such backend or variant.
        UsageError: `threads` is not a whole number of at least 1.

    Example:
        >>> from edgekd.runtime import load
        >>> model = load("bundle")
        >>> prediction = model("red.png")
        >>> prediction.label, len(prediction.top(2))
        ('red', 2)
        >>> model.verify().images
        3
    """
    if threads is not None:
        threads = whole_number(threads, "threads")
    manifest = read(Path(path))
    selection = select(manifest, backend, variant)
    failed: dict[str, EdgekdError] = {}
    for name in selection.files:
        found = _tried(manifest, selection, name, threads)
        if isinstance(found, Model):
            _warn(selection, failed, found)
            return found
        failed[name] = found
    raise _none_of(failed, manifest)


def _tried(manifest: BundleManifest, selection: Selection, variant: str, threads: int | None) -> Model | EdgekdError:
    """A variant in the engine, or why it cannot be used here.

    Raises:
        BundleError: the bundle is damaged, so that no other variant is to be believed either.
    """
    backend, file = selection.backend, selection.files[variant]
    subject = Subject.here(manifest, variant, file, backend)
    known, most = verified.recall(subject), manifest.variants[variant].tolerance
    if known is not None and known > most:
        return deviates(manifest, variant, f"{backend.name} {subject.version}", known)
    try:
        session = backend.open(file, threads=threads)
    except BackendError as error:
        return error
    model = Model(manifest, variant, session)
    problem: EdgekdError | None
    try:
        _check_tensors(manifest, file, session)
        if known is None:
            known = model.deviation()
            verified.remember(subject, known)
        problem = deviates(manifest, variant, model.engine, known) if known > most else None
    except BackendError as error:
        problem = error
    except BundleError:
        model.close()
        raise
    if problem is None:
        return model
    model.close()
    return problem


def _warn(selection: Selection, failed: Mapping[str, EdgekdError], model: Model) -> None:
    """One warning, where the variant is not the one that the bundle would use here."""
    found = [selection.doubt] if selection.doubt is not None else []
    found += [f"{name} is not used on this machine: {_shown(error)}." for name, error in failed.items()]
    if failed:
        found.append(f"{model.variant} is used instead.")
    if found:
        warnings.warn(BundleWarning(f"{model.manifest.path}: {' '.join(found)}"), stacklevel=3)


def _shown(error: EdgekdError) -> str:
    """An error in one line, without its next step, which is taken already."""
    parts = [str(error.found)] if error.found is not None else []
    parts += [f"allowed: {error.allowed}"] if error.allowed is not None else []
    return error.what + (f" ({'; '.join(parts)})" if parts else "")


def _none_of(failed: Mapping[str, EdgekdError], manifest: BundleManifest) -> EdgekdError:
    if len(failed) == 1:
        return next(iter(failed.values()))
    return BundleError(
        f"no variant of {manifest.path} can be used on this machine ({processor.name()})",
        found="; ".join(f"{name}: {_shown(error)}" for name, error in failed.items()),
        hint="copy the bundle again; if that does not help, report it with what `edgekd doctor` prints",
    )


def _check_tensors(manifest: BundleManifest, file: Path, session: Session) -> None:
    """Raises BundleError where the manifest describes another network: its answers would mean something else."""
    columns = len(manifest.classes) + sum(len(head.classes) for head in manifest.heads.values())
    wanted = {"input": manifest.preprocessing.shape, "output": (columns,)}
    for side, tensors in (("input", session.inputs), ("output", session.outputs)):
        found = tensors[0].shape[1:]
        if not fits(wanted[side], found):
            raise BundleError(
                f"{manifest.path / MANIFEST} does not describe the {side} of {file.name}",
                found=f"{tuple(wanted[side])} in {MANIFEST}",
                allowed=f"({', '.join(map(str, found))}), without the batch",
                hint="copy the bundle again, or export it again",
            )
