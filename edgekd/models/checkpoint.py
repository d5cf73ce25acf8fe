"""Checkpoints: a network saved in a folder, and rebuilt from that folder alone."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, SerializerFunctionWrapHandler, model_serializer
from torch import nn

from edgekd.errors import ArtifactError, ModelError, UnknownNameError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.checkpoint_metrics import CheckpointMetrics
from edgekd.models.code import codes_in, permitted, require_permission, source_of
from edgekd.models.cost import cost
from edgekd.models.reparameterization import has_branches
from edgekd.models.weights import load_state, read_state, save_state
from edgekd.quantization.placement import QUANTIZERS
from edgekd.recipe.code import CodeFile, read
from edgekd.runtime.preprocess import Preprocessing
from edgekd.store.artifacts import MANIFEST, Artifact, Details, Json, check_file, numbers


class NewClassifier(Details):
    """A newly initialised last layer; `classes_before`: the classes of the loaded weights, 0 without a classifier."""

    layer: str
    classes_before: int


class TrainingNotes(Details):
    """How a network was trained. Schemes may add keys; the fields are those that other stages use.

    Attributes:
        epochs: of the training.
        label_smoothing: of a training on labels.
        new_classifier: set where the last layer was newly initialised.
        teacher: the digest of the teacher's checkpoint.
        objective: the terms of the objective, as in the recipe.
    """

    model_config = ConfigDict(extra="allow")

    epochs: int | None = None
    label_smoothing: float | None = None
    new_classifier: NewClassifier | None = None
    teacher: str | None = None
    objective: list[Json] | None = None

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, handler: SerializerFunctionWrapHandler) -> Json:
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}


class CheckpointDetails(Details):
    """A network's architecture, its preprocessing and classes, and how it was trained."""

    architecture: Architecture
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    training: TrainingNotes = TrainingNotes()


class Checkpoint(Artifact[CheckpointDetails]):
    """`weights.safetensors`, and a manifest from which the network is rebuilt."""

    kind = "checkpoint"
    measured = CheckpointMetrics

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def classes(self) -> tuple[str, ...]:
        return self.details.classes


def save(
    model: nn.Module,
    architecture: Architecture,
    *,
    preprocessing: Preprocessing,
    classes: tuple[str, ...],
    out: Path,
    training: TrainingNotes | None = None,
    metrics: Json | None = None,
) -> Checkpoint:
    """Write `model` to the folder `out` as a checkpoint that rebuilds it.

    Args:
        model: the network.
        architecture: rebuilds the network without its weights.
        preprocessing: how the network sees an image.
        classes: the class names, in the order of the logits.
        out: an empty folder, which becomes the checkpoint.
        training: how it was trained.
        metrics: what was measured during the training, on the validation split.

    Returns:
        The checkpoint; its metrics also have the network's parameters and multiply-accumulates, and `branches` where it
        has some that can be folded.

    Raises:
        UsageError: a file of the user's own network is not allowed to run.
        OSError: the disk is full.
    """
    save_state(model, out / "weights.safetensors")
    for code in codes_in(architecture):
        (out / code.place).parent.mkdir(parents=True, exist_ok=True)
        (out / code.place).write_bytes(source_of(code).content)
    details = CheckpointDetails(
        architecture=architecture,
        preprocessing=preprocessing,
        classes=classes,
        training=training or TrainingNotes(),
    )
    size = numbers(cost(model, preprocessing.shape))
    known = {**(metrics or {}), **{k: int(v) for k, v in size.items()}}
    return Checkpoint.seal(
        out, details=details, metrics={**known, **({"branches": True} if has_branches(model) else {})}
    )


def load(checkpoint: Checkpoint, *, allow_code: bool = False) -> nn.Module:
    """Rebuild the network of a checkpoint, in eval mode.

    Args:
        checkpoint: the checkpoint.
        allow_code: run the checkpoint's copy of the code of a user's own network. Not needed within a run whose recipe
            brought the same code.

    Raises:
        UsageError: the checkpoint carries code that was not allowed to run.
        ArtifactError: the code is missing or was changed.
        ModelError: the architecture in the manifest cannot be built, or the weights do not fit it or lack its
            quantizers.
    """
    architecture = checkpoint.details.architecture
    copies = _code_in(checkpoint, architecture)
    with permitted(copies if allow_code else ()):
        require_permission(copies, owner=str(checkpoint.path))
        model, state = _built(checkpoint), read_state(checkpoint.weights)
    lost = [name for name in model.state_dict() if name.startswith(f"{QUANTIZERS}.") and name not in state]
    if lost:
        raise ModelError(
            f"the quantizers of {checkpoint.path} are missing from its weights",
            found=f"no {lost[0]}" + (f" and {len(lost) - 1} more" if len(lost) > 1 else ""),
            hint="quantize the float checkpoint again: without their scales there is no int8",
        )
    load_state(model, state, origin=checkpoint.path)
    return model.eval()


def _built(checkpoint: Checkpoint) -> nn.Module:
    try:
        return build(checkpoint.details.architecture)
    except (ModelError, UnknownNameError) as error:
        raise ModelError(
            f"the network that {checkpoint.path / MANIFEST} describes cannot be built: {error.what}",
            found=error.found,
            allowed=error.allowed,
            hint=error.hint or f"restore it, or, if a run of yours made it, delete {checkpoint.path} to make it again",
        ) from error


def _code_in(checkpoint: Checkpoint, architecture: Architecture) -> list[CodeFile]:
    """The checkpoint's copies of the files that build it."""
    files = []
    for code in codes_in(architecture):
        if code.place not in checkpoint.manifest.files:
            raise ArtifactError(f"{checkpoint.path} does not carry the code of its network", found=f"no {code.place}")
        check_file(checkpoint.path / code.place, code.sha256, owner=str(checkpoint.path))
        files.append(read(checkpoint.path.absolute() / code.place))
    return files
