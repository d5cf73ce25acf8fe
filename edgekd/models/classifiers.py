"""Opens what `edgekd eval` measures: a bundle, a checkpoint, or a model's file. Imports torch for a checkpoint only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.errors import BackendError, BundleError, UsageError, require
from edgekd.runtime import load
from edgekd.runtime.accuracy import Classifier, Network
from edgekd.runtime.backends import Session, TensorInfo, fits, open_session
from edgekd.runtime.bundle import MANIFEST as BUNDLE
from edgekd.runtime.bundle import read
from edgekd.runtime.preprocess import Preprocessing
from edgekd.store.artifacts import MANIFEST

# What a checkpoint for images of several labels was measured by.
_SETS = "validation_mAP"
_FLOATS = ("float16", "float32", "float64")
_WEIGHTS = frozenset({".pth", ".pt", ".tar", ".ckpt", ".bin", ".safetensors"})

if TYPE_CHECKING:
    from edgekd.models.checkpoint import Checkpoint


def open_classifier(
    path: Path,
    *,
    variant: str | None = None,
    backend: str | None = None,
    like: Path | None = None,
    allow_code: bool = False,
) -> Classifier:
    """Open a bundle's folder, a checkpoint's folder, or a file that an engine opens, such as an ONNX graph.

    Args:
        path: what to open.
        variant: of a bundle; None: the one that the engine prefers.
        backend: an inference engine by name, for a bundle or a file; None: as edgekd.runtime.load chooses.
        like: a bundle or a checkpoint that has the classes and the preprocessing of a file, which has neither.
        allow_code: run the code of a user's own network that a checkpoint carries.

    Raises:
        UsageError: an option that does not apply, a file without `like`, or code that was not allowed to run.
        BundleError, ArtifactError: the folder is neither, or was changed.
        BackendError, UnknownNameError: as edgekd.runtime.load.
        MissingDependencyError: a checkpoint where there is no torch.
    """
    if not path.exists():
        raise BundleError(f"{path} does not exist", allowed="a bundle, a checkpoint's folder, or an engine's file")
    if path.is_file():
        if path.suffix.lower() in _WEIGHTS:
            raise UsageError(
                f"{path} is weights without a network",
                allowed="a bundle, a checkpoint's folder, or an engine's file such as .onnx",
                hint="run a recipe that names its network, with distill: {scheme: none}: it evaluates the weights",
            )
        _refuse(path, "a file", variant=variant)
        return _of_file(path, backend, like)
    _refuse(path, "a folder", like=like)
    if not _is_checkpoint(path):
        return load(path, variant=variant, backend=backend)
    _refuse(path, "a checkpoint", variant=variant, backend=backend)
    return _of_checkpoint(_checkpoint(path), allow_code)


def _refuse(path: Path, what: str, **options: object) -> None:
    """Refuse options that would be ignored."""
    if given := [name for name, value in options.items() if value is not None]:
        raise UsageError(f"{path} is {what}: remove {' and '.join(given)}")


def _is_checkpoint(path: Path) -> bool:
    return (path / MANIFEST).is_file() and not (path / BUNDLE).is_file()


def _checkpoint(path: Path) -> Checkpoint:
    require("torch", purpose="a checkpoint", extra="train")
    from edgekd.models.checkpoint import Checkpoint

    return Checkpoint.load(path)


def _of_file(path: Path, backend: str | None, like: Path | None) -> Network:
    if like is None:
        raise UsageError(
            f"{path} is one file, without class names and preprocessing",
            allowed="a bundle or a checkpoint that has them, as `like`",
            hint=f"edgekd eval {path} IMAGES --like BUNDLE",
        )
    classes, heads, preprocessing = _described(like)
    session = open_session(path, backend=backend)
    try:
        _require_images_to_logits(path, session, preprocessing, len(classes) + heads)
    except BackendError:
        session.close()
        raise
    return Network(path.name, classes, len(classes) + heads, preprocessing, session)


def _require_images_to_logits(path: Path, session: Session, preprocessing: Preprocessing, columns: int) -> None:
    """Raises BackendError for a model that takes other inputs, or has other outputs first."""
    wanted = f"one input of floats (batch, {', '.join(map(str, preprocessing.shape))})"
    for side, tensors, sizes, allowed in (
        ("input", session.inputs, tuple(preprocessing.shape), wanted),
        ("output", session.outputs[:1], (columns,), f"first an output of floats (batch, {columns})"),
    ):
        found = [f"{each.dtype} ({', '.join(map(str, each.shape))})" for each in tensors]
        if len(tensors) != 1 or tensors[0].dtype not in _FLOATS or not fits((1, *sizes), _any_batch(tensors[0])):
            raise BackendError(
                f"{path} is not a network from images to the logits of these classes: its {side} is another",
                found=", ".join(found) or f"no {side}",
                allowed=allowed,
                hint="pass with --like the bundle or checkpoint of this network; normalised images are floats",
            )


def _any_batch(tensor: TensorInfo) -> tuple[int | str, ...]:
    return ("batch", *tensor.shape[1:]) if tensor.shape else ()


def _described(path: Path) -> tuple[tuple[str, ...], int, Preprocessing]:
    """The classes, the number of outputs of additional heads, and the preprocessing."""
    if _is_checkpoint(path):
        checkpoint = _checkpoint(path)
        _require_one_label(path, _SETS in checkpoint.metrics)
        details = checkpoint.details
        return details.classes, sum(map(len, details.architecture.heads.values())), details.preprocessing
    manifest = read(path)
    _require_one_label(path, manifest.task == "multilabel")
    return manifest.classes, sum(len(head.classes) for head in manifest.heads.values()), manifest.preprocessing


def _require_one_label(path: Path, several: bool) -> None:
    """Raises UsageError where an image can have several of the classes: only a bundle has their thresholds."""
    if several:
        raise UsageError(
            f"{path} is of images with several labels, which are measured with a bundle's thresholds",
            allowed="the folder of the bundle itself, and a table of images and labels",
        )


def _of_checkpoint(checkpoint: Checkpoint, allow_code: bool) -> Network:
    from edgekd.models.checkpoint import load as rebuilt
    from edgekd.models.session import TorchSession

    _require_one_label(checkpoint.path, _SETS in checkpoint.metrics)
    details, network = checkpoint.details, rebuilt(checkpoint, allow_code=allow_code)
    columns = len(details.classes) + sum(map(len, details.architecture.heads.values()))
    return Network("checkpoint", details.classes, columns, details.preprocessing, TorchSession(network))
