"""What a training begins with: a new network, published weights, or the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build, published_classes
from edgekd.models.checkpoint import Checkpoint, NewClassifier
from edgekd.models.code import code_of
from edgekd.models.own import check_answers
from edgekd.models.stems import wants_small_stem
from edgekd.models.weights import OtherHead, last_layer, load_state, other_head, read_state
from edgekd.recipe.settings import ModelSettings
from edgekd.runtime.preprocess import Preprocessing
from edgekd.store.artifacts import Json

_FINE_TUNE = "a teacher is given a new last layer for the data's classes where it is fine-tuned: set teacher.train"


@dataclass(frozen=True)
class Start:
    """A network before its first step.

    Attributes:
        head: its last layer is new, as its weights knew another number of classes.
        other_names: how its classes and the data's are named otherwise, where their number is the same.
    """

    network: nn.Module
    architecture: Architecture
    head: OtherHead | None = None
    other_names: str | None = None

    @property
    def warnings(self) -> list[str]:
        kept = f"The classifier was kept, though classes are named otherwise: {self.other_names}."
        return [*([str(self.head)] if self.head is not None else []), *([kept] if self.other_names else [])]

    @property
    def note(self) -> Json:
        """What a checkpoint's manifest says of it."""
        if self.head is None:
            return {}
        return {"new_classifier": NewClassifier(layer=self.head.layer, classes_before=self.head.before)}


def start(
    model: ModelSettings | Checkpoint,
    seen: Preprocessing,
    classes: Sequence[str],
    *,
    adopted: bool,
    heads: Mapping[str, Sequence[str]] | None = None,
) -> Start:
    """The network that a recipe describes, or a checkpoint's, as it is.

    Args:
        seen: how the data's images are seen.
        classes: the data's. Weights for another number are loaded but for the last layer.
        adopted: it is not going to be trained, so that a new last layer would know nothing.
        heads: further tasks of a new network, each with its classes.

    Raises:
        UnknownNameError: no such model.
        ModelError: it cannot be built, its weights do not fit, or it knows other classes and is adopted.
    """
    if isinstance(model, Checkpoint):
        return Start(checkpoints.load(model), model.details.architecture)
    if model.checkpoint is not None and model.checkpoint.is_dir():
        return _from_folder(model.checkpoint, model, seen, classes, adopted=adopted)
    further = {name: tuple(own) for name, own in (heads or {}).items()}
    width = len(classes) + sum(map(len, further.values()))
    code = code_of(model.model)
    architecture = Architecture(
        model=model.model if code is None else str(code),
        arguments=model.arguments,
        num_classes=width,
        small_stem=code is None and wants_small_stem(model.model, seen.image_size, model.stem),
        heads=further,
        code=code,
    )
    network = build(architecture, pretrained=model.pretrained)
    if code is not None:
        check_answers(network, architecture, seen.image_size)
    head = None
    if model.pretrained and (published := published_classes(model.model)) != width:
        head = OtherHead(last_layer(network, width), published, width)
        _refuse(head if adopted else None, f"the published weights of {model.model}")
    if model.checkpoint is not None:
        head = _load(network, read_state(model.checkpoint), model.checkpoint, width, adopted=adopted)
    return Start(network, architecture, head)


def _from_folder(
    folder: Path, said: ModelSettings, seen: Preprocessing, classes: Sequence[str], *, adopted: bool
) -> Start:
    """A folder says itself what it holds; where the recipe says it too, the two must agree."""
    checkpoint = Checkpoint.load(folder)
    architecture = checkpoint.details.architecture
    _check_said(folder, said, architecture)
    own = checkpoint.details.preprocessing
    if (own.mean, own.std) != (seen.mean, seen.std):
        raise ModelError(
            f"the images are normalised otherwise than {folder} was trained on",
            found=f"mean {seen.mean}, std {seen.std}",
            allowed=f"mean {own.mean}, std {own.std}",
            hint="set data.mean and data.std to these",
        )
    if architecture.heads and adopted:
        raise ModelError(
            f"{folder} has several heads, and a teacher answers one question",
            found=", ".join(architecture.heads),
            hint=_FINE_TUNE,
        )
    if architecture.num_classes == len(classes) and not architecture.heads:
        differ = _other_names(checkpoint.classes, classes)
        if differ is not None and adopted:
            raise ModelError(
                f"{folder} knows other classes than the data has, or the same in another order",
                found=differ,
                allowed=", ".join(classes[:10]) + ("…" if len(classes) > 10 else ""),
                hint="name the classes as it does, in its order; or fine-tune it: set teacher.train",
            )
        return Start(checkpoints.load(checkpoint), architecture, other_names=differ)
    widened = architecture.model_copy(update={"num_classes": len(classes), "heads": {}})
    network, state = build(widened), read_state(checkpoint.weights)
    return Start(network, widened, _load(network, state, folder, len(classes), adopted=adopted))


def _other_names(known: Sequence[str], classes: Sequence[str]) -> str | None:
    """The first class that is named otherwise."""
    pairs = enumerate(zip(known, classes, strict=False))
    return next((f"class {number} is {own}, and {new} in the data" for number, (own, new) in pairs if own != new), None)


def _check_said(folder: Path, said: ModelSettings, architecture: Architecture) -> None:
    code, own = code_of(said.model), architecture.code
    if code is not None and own is not None and code.sha256 != own.sha256:
        raise ModelError(
            f"the code of {folder} differs from {said.model}",
            found=f"sha256 {code.sha256} in the file",
            allowed=f"sha256 {own.sha256}, which the checkpoint carries",
            hint=f"name the checkpoint's own copy: model: {folder / own.place}:{own.function}",
        )
    if code is not None and own is not None and code.function != own.function:
        raise ModelError(f"{folder} was built by another function", found=code.function, allowed=own.function)
    if (code is None or own is None) and architecture.model != said.model:
        raise ModelError(f"{folder} holds another model", found=architecture.model, allowed=said.model)
    if said.arguments and said.arguments != architecture.arguments:
        raise ModelError(
            f"{folder} was built with other arguments", found=said.arguments, allowed=architecture.arguments
        )
    if said.stem != "auto" and (said.stem == "small") != architecture.small_stem:
        stem = "small" if architecture.small_stem else "standard"
        raise ModelError(f"{folder} has another stem", found=said.stem, allowed=stem)


def _load(
    network: nn.Module, state: Mapping[str, Tensor], origin: Path, classes: int, *, adopted: bool
) -> OtherHead | None:
    head = other_head(network, state, classes)
    _refuse(head if adopted else None, origin)
    load_state(network, head.left_out(network, state) if head is not None else state, origin=origin)
    return head


def _refuse(head: OtherHead | None, origin: object) -> None:
    if head is not None:
        raise ModelError(
            f"{origin} knows another number of classes",
            found=f"{head.before} classes" if head.before else "no classifier",
            allowed=f"{head.after}, as the data has",
            hint=_FINE_TUNE,
        )
