"""Checkpoints: a network written to a folder, and rebuilt from nothing but that folder."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from edgekd.errors import ArtifactError, ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.cost import cost
from edgekd.models.weights import load_state, read_state, save_state
from edgekd.quantization.placement import QUANTIZERS
from edgekd.runtime.preprocess import Preprocessing
from edgekd.store.artifacts import Artifact, Json, numbers


class Checkpoint(Artifact):
    """`weights.safetensors` and everything that rebuilds the network around them."""

    kind = "checkpoint"

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.manifest.details["classes"])


def save(
    model: nn.Module,
    architecture: Architecture,
    *,
    preprocessing: Preprocessing,
    classes: tuple[str, ...],
    out: Path,
    training: Json | None = None,
    metrics: Json | None = None,
) -> Checkpoint:
    """Write `model` to the folder `out` as a checkpoint that rebuilds it.

    Args:
        training: how it was trained, for those who learn from it (label smoothing, teacher, …).
        metrics: what was measured while it was trained, on the validation split.
    """
    save_state(model, out / "weights.safetensors")
    details = {
        "architecture": architecture.model_dump(mode="json"),
        "preprocessing": preprocessing.to_json(),
        "classes": list(classes),
        "training": training or {},
    }
    size = numbers(cost(model, preprocessing.image_size))
    return Checkpoint.seal(out, details=details, metrics={**(metrics or {}), **{k: int(v) for k, v in size.items()}})


def load(checkpoint: Checkpoint) -> nn.Module:
    """The network of a checkpoint, in eval mode.

    Raises:
        ModelError: the weights do not fit the architecture that the manifest names, or lack its quantizers.
    """
    architecture = architecture_of(checkpoint)
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


def architecture_of(checkpoint: Checkpoint) -> Architecture:
    """Raises ArtifactError where the manifest has none that this version understands."""
    try:
        return Architecture.model_validate(checkpoint.manifest.details["architecture"])
    except (KeyError, ValueError) as error:
        raise ArtifactError(f"{checkpoint.path} does not say what network it holds", found=str(error)) from None


def preprocessing_of(checkpoint: Checkpoint) -> Preprocessing:
    """Raises ArtifactError where the manifest has none that this version understands."""
    try:
        return Preprocessing.from_json(checkpoint.manifest.details["preprocessing"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{checkpoint.path} does not say how it sees images", found=repr(error)) from None
