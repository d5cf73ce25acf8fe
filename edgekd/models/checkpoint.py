"""Checkpoints: a network written to a folder, and rebuilt from nothing but that folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, SerializerFunctionWrapHandler, model_serializer
from torch import nn

from edgekd.errors import ArtifactError, ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.code import codes_in, permitted, require_permission, source_of
from edgekd.models.cost import cost
from edgekd.models.weights import load_state, read_state, save_state
from edgekd.quantization.placement import QUANTIZERS
from edgekd.recipe.code import CodeFile, read
from edgekd.runtime.preprocess import Preprocessing
from edgekd.store.artifacts import Artifact, Details, Json, check_file, numbers


class NewClassifier(Details):
    """A last layer that begins anew; `classes_before`: how many its weights knew, 0 where they had no classifier."""

    layer: str
    classes_before: int


class TrainingNotes(Details):
    """How a network was trained. Schemes add what is theirs; what others learn from is a field.

    Attributes:
        teacher: the digest of the checkpoint whose answers it learned from.
        objective: the losses, as the recipe has them.
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
    """What rebuilds a network, how it sees images, and how it was trained."""

    architecture: Architecture
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    training: TrainingNotes = TrainingNotes()


class Checkpoint(Artifact[CheckpointDetails]):
    """`weights.safetensors` and everything that rebuilds the network around them."""

    kind = "checkpoint"

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
        training: how it was trained, for those who learn from it (label smoothing, teacher, …).
        metrics: what was measured while it was trained, on the validation split.
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
    size = numbers(cost(model, preprocessing.image_size))
    return Checkpoint.seal(out, details=details, metrics={**(metrics or {}), **{k: int(v) for k, v in size.items()}})


def load(checkpoint: Checkpoint, *, allow_code: bool = False) -> nn.Module:
    """The network of a checkpoint, in eval mode; one of the user's own is built by the checkpoint's copy of its code.

    Args:
        allow_code: let this copy run. Within a run whose recipe brought the same code, it may.

    Raises:
        UsageError: the checkpoint carries code that nobody asked to run.
        ArtifactError: the code is not there.
        ModelError: the weights do not fit the architecture that the manifest names, or lack its quantizers.
    """
    architecture = checkpoint.details.architecture
    copies = _code_in(checkpoint, architecture)
    with permitted(copies if allow_code else ()):
        require_permission(copies, owner=str(checkpoint.path))
        model, state = build(architecture), read_state(checkpoint.weights)
    lost = [name for name in model.state_dict() if name.startswith(f"{QUANTIZERS}.") and name not in state]
    if lost:
        raise ModelError(
            f"the quantizers of {checkpoint.path} are missing from its weights",
            found=f"no {lost[0]}" + (f" and {len(lost) - 1} more" if len(lost) > 1 else ""),
            hint="quantize the float checkpoint again: without their scales there is no int8",
        )
    load_state(model, state, origin=checkpoint.path)
    return model.eval()


def _code_in(checkpoint: Checkpoint, architecture: Architecture) -> list[CodeFile]:
    """The checkpoint's own copies of what builds it."""
    found = []
    for code in codes_in(architecture):
        if code.place not in checkpoint.manifest.files:
            raise ArtifactError(f"{checkpoint.path} does not carry the code of its network", found=f"no {code.place}")
        check_file(checkpoint.path / code.place, code.sha256, owner=str(checkpoint.path))
        found.append(read(checkpoint.path.absolute() / code.place))
    return found
