"""The network that a training starts from: new, with published weights, or with the user's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgekd import plugins
from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models import hub_folder, onnx_network
from edgekd.models.architecture import Architecture
from edgekd.models.build import build, published_classes
from edgekd.models.checkpoint import Checkpoint, NewClassifier
from edgekd.models.code import code_of
from edgekd.models.edits.activation import RELU
from edgekd.models.edits.reparameterize import edit_of
from edgekd.models.greyscale import summed
from edgekd.models.hub_folder import HubFolder
from edgekd.models.logits import check_logits
from edgekd.models.onnx_network import OnnxNetwork
from edgekd.models.own import check_outputs, from_outside
from edgekd.models.own_input import Seen, check_student, classes_beside, seen_by_onnx, seen_by_teacher
from edgekd.models.reparameterization import fold, has_branches
from edgekd.models.state_files import Chosen, choose
from edgekd.models.stems import wants_small_stem
from edgekd.models.values import check_values
from edgekd.models.weights import NewHead, last_layer, load_state, new_head, read_state
from edgekd.recipe.onnx_file import onnx_file
from edgekd.recipe.settings import ModelSettings, TeacherSettings
from edgekd.runtime.preprocess import Preprocessing
from edgekd.store.artifacts import Json
from edgekd.wording import counted

_FINE_TUNE = (
    "fine-tune it with a new last layer for the data's classes: a teacher by teacher.train, a student by another scheme"
)


@dataclass(frozen=True)
class Start:
    """A network before its first step.

    Attributes:
        head: set where the last layer is new, because the weights have another number of classes.
        other_names: how the class names differ from the data's, where their number is the same.
        notes: further warnings.
    """

    network: nn.Module
    architecture: Architecture
    head: NewHead | None = None
    other_names: str | None = None
    notes: tuple[str, ...] = ()

    def edited(self, edit: dict[str, Any]) -> Start:
        """With an edit of the network, in place, that its checkpoint replays."""
        network = plugins.load("edit", edit["edit"]).apply(self.network, edit)
        return replace(self, network=network, architecture=self.architecture.edited(edit))

    @property
    def warnings(self) -> list[str]:
        kept = f"The classifier was kept although the class names differ: {self.other_names}."
        head = [str(self.head)] if self.head is not None else []
        return [*head, *([kept] if self.other_names else []), *self.notes]

    @property
    def note(self) -> Json:
        """The entry for a checkpoint's manifest."""
        if self.head is None:
            return {}
        return {"new_classifier": NewClassifier(layer=self.head.layer, classes_before=self.head.before)}


def start(
    model: ModelSettings | Checkpoint,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    *,
    adopted: bool,
    heads: Mapping[str, Sequence[str]] | None = None,
    fetch: bool = True,
) -> Start:
    """The network that a recipe describes, or that of a checkpoint.

    Args:
        model: the recipe's settings, or a checkpoint.
        preprocessing: of the data.
        classes: of the data. Weights for another number of classes are loaded except for the last layer.
        adopted: whether the network is used without training, so that it must not have a new last layer.
        heads: additional tasks of a new network, each with its classes.
        fetch: whether published weights are loaded; otherwise they are random instead, to check the rest.

    Raises:
        UnknownNameError: no such model.
        UsageError: its code is not allowed to run, or a file cannot be read.
        ArtifactError: a checkpoint folder is damaged.
        ModelError: it cannot be built, its weights do not fit, or it is adopted and has other classes.
    """
    if isinstance(model, Checkpoint):
        return Start(checkpoints.load(model), model.details.architecture)
    if (file := onnx_file(model.model)) is not None and isinstance(model, TeacherSettings):
        return _from_onnx(file, model, preprocessing, classes)
    seen, warning = _seen(model, preprocessing, adopted=adopted)
    if model.checkpoint is not None and model.checkpoint.is_dir() and not hub_folder.is_one(model.checkpoint):
        begun = _from_folder(model.checkpoint, model, seen, classes, adopted=adopted)
        check_logits(begun.network, begun.architecture, seen.shape, trained=not adopted)
    else:
        begun = _from_settings(model, seen, classes, heads or {}, adopted=adopted, fetch=fetch)
    if warning is not None:
        begun = replace(begun, notes=(*begun.notes, warning))
    return begun if seen.edit is None else begun.edited(seen.edit)


def _seen(model: ModelSettings, preprocessing: Preprocessing, *, adopted: bool) -> tuple[Seen, str | None]:
    """How the network sees the data's images, and a warning; a teacher's inputs are converted, a student's are not."""
    if isinstance(model, TeacherSettings):
        return seen_by_teacher(model, preprocessing, adopted=adopted), None
    return Seen(preprocessing.shape), check_student(model, preprocessing, adopted=adopted)


def _from_settings(
    model: ModelSettings,
    seen: Seen,
    classes: Sequence[str],
    heads: Mapping[str, Sequence[str]],
    *,
    adopted: bool,
    fetch: bool,
) -> Start:
    """A new network, with the weights that its source publishes, or with those of a file or of a hub's folder."""
    further = {name: tuple(own) for name, own in heads.items()}
    width = len(classes) + sum(map(len, further.values()))
    code, file, hub = code_of(model.model), model.checkpoint, None
    if file is not None and file.is_dir():
        hub = hub_folder.read(file)
        file = hub.weights
    # With another stride the weights of a trained network fit as well, and its answers are wrong.
    stem = "standard" if adopted and model.stem == "auto" else model.stem
    architecture = Architecture(
        model=model.model if code is None else str(code),
        arguments={**(hub.arguments if hub is not None else {}), **model.arguments},
        num_classes=width,
        small_stem=code is None and wants_small_stem(model.model, seen.shape[1:], stem),
        channels=seen.shape.channels,
        heads=further,
        code=code,
    )
    if model.activation == "relu":
        architecture = architecture.edited(dict(RELU))
    published = published_classes(model.model) if model.pretrained else width
    if adopted and published != width:
        _refuse(NewHead("", published, width), f"the published weights of {model.model}")
    network = build(architecture, pretrained=model.pretrained and fetch)
    if model.pretrained and fetch:
        check_values(network, network.state_dict(), origin=f"{model.model}, as published,")
    if from_outside(model.model):
        check_outputs(network, architecture, seen.shape, trained=not adopted)
    else:
        check_logits(network, architecture, seen.shape, trained=not adopted)
    head = NewHead(last_layer(network, width), published, width) if published != width else None
    if file is None:
        summed_stem = model.pretrained and architecture.channels == 1 and code is None
        return Start(network, architecture, head, notes=(_for_greyscale(model.model),) if summed_stem else ())
    differ = _check_hub(model, hub, classes, adopted=adopted) if hub is not None else None
    begun = Start(network, architecture)
    try:
        chosen, grey = _chosen(network, architecture, file, width, model.key)
    except ModelError as error:
        begun, chosen, grey = _chosen_folded(begun, file, width, model.key, error)
    _take(begun.network, chosen.state, chosen.head, file, adopted=adopted)
    notes = tuple(note for note in (chosen.warning, grey) if note is not None)
    return replace(begun, head=chosen.head, other_names=differ, notes=notes)


def _chosen(
    network: nn.Module, architecture: Architecture, file: Path, classes: int, key: str | None
) -> tuple[Chosen, str | None]:
    """The weights in a file, and a note where they are those of an RGB network, made to take greyscale images.

    Raises:
        ModelError, UsageError: see choose().
    """
    if architecture.channels == 1 and architecture.code is None:
        try:
            rgb = choose(build(architecture.model_copy(update={"channels": 3})), file, classes, key=key)
        except ModelError:
            pass  # they may be of a greyscale network
        else:
            own = network.state_dict()
            state = {
                name: summed(value) if own[name].shape != value.shape and own[name].shape[1:2] == (1,) else value
                for name, value in rgb.state.items()
            }
            return replace(rgb, state=state), _for_greyscale(file.name)
    return choose(network, file, classes, key=key), None


def _for_greyscale(weights: str) -> str:
    return f"The weights of {weights} are for RGB: those of the first convolution were summed for greyscale."


def _chosen_folded(
    begun: Start, file: Path, classes: int, key: str | None, error: ModelError
) -> tuple[Start, Chosen, str]:
    """A network with its branches folded, where the weights in a file are those of such a one; else raises `error`."""
    if not has_branches(begun.network):
        raise error
    try:
        folded = fold(begun.network)
        chosen = choose(folded.model, file, classes, key=key)
    except ModelError:
        raise error from None
    note = f"The weights of {file.name} are those of a network whose branches are folded: it is used without branches."
    return Start(folded.model, begun.architecture.edited(edit_of(folded))), chosen, note


def _check_hub(model: ModelSettings, hub: HubFolder, classes: Sequence[str], *, adopted: bool) -> str | None:
    """How a folder's class names differ from the data's. Raises ModelError where it holds another model."""
    folder = hub.weights.parent
    if hub.architecture is not None and model.model.partition("/")[0] == "timm":
        name = model.model.partition("/")[2]
        if name.partition(".")[0] != hub.architecture.partition(".")[0]:
            raise ModelError(f"{folder} holds another model", found=f"timm/{hub.architecture}", allowed=model.model)
    if hub.classes is None or len(hub.classes) != len(classes):
        return None
    return _checked_names(folder, hub.classes, classes, adopted=adopted)


def _from_onnx(file: Path, model: TeacherSettings, data: Preprocessing, classes: Sequence[str]) -> Start:
    """An ONNX file, behind a conversion of the data's inputs where its own are others."""
    network = OnnxNetwork.read(file, len(classes))
    arguments = {"size": len(network.graph), "log": network.log}
    begun = Start(network, Architecture(model=onnx_network.MODEL, arguments=arguments, num_classes=len(classes)))
    if (named := classes_beside(file)) is not None and len(named) == len(classes):
        _checked_names(file, named, classes, adopted=True)
    edit = seen_by_onnx(file, network.signature, model, data)
    if network.log:
        note = f"The outputs of {file.name} are probabilities: their logarithms are taken as logits."
        begun = replace(begun, notes=(note,))
    elif network.probabilities:
        note = (
            f"All outputs of {file.name} for noise are between 0 and 1, and are taken as logits. If they are those of "
            "a sigmoid, export the network without it."
        )
        begun = replace(begun, notes=(note,))
    return begun if edit is None else begun.edited(edit)


def _from_folder(folder: Path, settings: ModelSettings, seen: Seen, classes: Sequence[str], *, adopted: bool) -> Start:
    """The network of a checkpoint folder. Its manifest describes the network; the recipe's settings must agree."""
    checkpoint = Checkpoint.load(folder)
    architecture = checkpoint.details.architecture
    _check_agreement(folder, settings, architecture)
    if architecture.channels != seen.shape.channels:
        raise ModelError(
            f"{folder} was trained on images with another number of channels",
            found=f"data.channels: {seen.shape.channels}",
            allowed=architecture.channels,
        )
    if architecture.heads and adopted:
        raise ModelError(
            f"{folder} has several heads, and a teacher must have one",
            found=", ".join(architecture.heads),
            hint=_FINE_TUNE,
        )
    if architecture.num_classes == len(classes) and not architecture.heads:
        differ = _checked_names(folder, checkpoint.classes, classes, adopted=adopted)
        return Start(checkpoints.load(checkpoint), architecture, other_names=differ)
    widened = architecture.model_copy(update={"num_classes": len(classes), "heads": {}})
    network, state = build(widened), read_state(checkpoint.weights)
    head = new_head(network, state, len(classes))
    _take(network, state, head, folder, adopted=adopted)
    return Start(network, widened, head)


def _checked_names(folder: Path, known: Sequence[str], classes: Sequence[str], *, adopted: bool) -> str | None:
    """The first class whose name differs, for a warning. Raises ModelError where the network is adopted."""
    differ = _other_names(known, classes)
    if differ is not None and adopted:
        raise ModelError(
            f"{folder} has other classes than the data, or the same in another order",
            found=differ,
            allowed=", ".join(classes[:10]) + ("…" if len(classes) > 10 else ""),
            hint="set data.classes to the order of the weights"
            if sorted(known) == sorted(classes)
            else "use the same class names; or fine-tune it: set teacher.train",
        )
    return differ


def _other_names(known: Sequence[str], classes: Sequence[str]) -> str | None:
    """The first class whose name differs; None where all names are equal."""
    pairs = enumerate(zip(known, classes, strict=False))
    return next((f"class {number} is {own}, and {new} in the data" for number, (own, new) in pairs if own != new), None)


def _check_agreement(folder: Path, settings: ModelSettings, architecture: Architecture) -> None:
    code, own = code_of(settings.model), architecture.code
    if code is not None and own is not None and code.sha256 != own.sha256:
        raise ModelError(
            f"the code of {folder} differs from {settings.model}",
            found=f"sha256 {code.sha256} in the file",
            allowed=f"sha256 {own.sha256}, which the checkpoint carries",
            hint=f"name the checkpoint's own copy: model: {folder / own.place}:{own.function}",
        )
    if code is not None and own is not None and code.function != own.function:
        raise ModelError(f"{folder} was built by another function", found=code.function, allowed=own.function)
    if (code is None or own is None) and architecture.model != settings.model:
        raise ModelError(f"{folder} holds another model", found=architecture.model, allowed=settings.model)
    if settings.arguments and settings.arguments != architecture.arguments:
        raise ModelError(
            f"{folder} was built with other arguments", found=settings.arguments, allowed=architecture.arguments
        )
    if settings.stem != "auto" and (settings.stem == "small") != architecture.small_stem:
        stem = "small" if architecture.small_stem else "standard"
        raise ModelError(f"{folder} has another stem", found=settings.stem, allowed=stem)
    if settings.activation == "relu" and RELU not in architecture.edits:
        raise ModelError(
            f"{folder} has other activations", found="activation: relu", allowed="standard, as it was trained with"
        )


def _take(
    network: nn.Module, state: Mapping[str, Tensor], head: NewHead | None, origin: Path, *, adopted: bool
) -> None:
    _refuse(head if adopted else None, origin)
    load_state(network, head.replaced(network, state) if head is not None else state, origin=origin)


def _refuse(head: NewHead | None, origin: object) -> None:
    if head is not None:
        raise ModelError(
            f"{origin} has another number of classes",
            found=counted(head.before, "class") if head.before else "no classifier",
            allowed=f"{head.after}, as the data has",
            hint=_FINE_TUNE,
        )
