"""The state from which a training resumes after a kill: tensors as safetensors, the rest as JSON."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgekd.errors import ArtifactError, TrainingError
from edgekd.models.weights import put_state
from edgekd.store.artifacts import file_digest, read_json, write_json


@dataclass(frozen=True)
class EpochRecord:
    """One epoch's metrics; the accuracy (with several labels per image the mAP) is on the validation split after the
    epoch, the threads those at its end."""

    epoch: int
    loss: float
    terms: Mapping[str, float]
    learning_rate: float
    images_per_s: float
    validation_accuracy: float | None
    threads: int | None = None


@dataclass
class TrainingState:
    """Everything that changes during training, except random state: each epoch has its own seed."""

    folder: Path
    modules: Mapping[str, nn.Module]
    optimiser: torch.optim.Optimizer
    history: list[EpochRecord] = field(default_factory=list)

    def save(self) -> None:
        """Write the state beside the old one, then switch to it with one rename. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        epoch = len(self.history)
        file = self.folder / f"epoch-{epoch}.safetensors"
        save_file(dict(self._tensors()), file)
        _sync(file)
        head = {"file": file.name, "sha256": file_digest(file), "history": [asdict(r) for r in self.history]}
        write_json(self.folder / "head.json", head)
        for old in self.folder.glob("epoch-*.safetensors"):
            if old != file:
                old.unlink()

    def restore(self) -> None:
        """Restore the state that an interrupted run saved, if there is one.

        Raises:
            TrainingError: the saved state was damaged.
        """
        head_file = self.folder / "head.json"
        if not head_file.exists():
            return
        try:
            head = read_json(head_file)
            # Plain again: asdict() cannot copy the dictionaries that read_json() makes.
            history = [EpochRecord(**{**record, "terms": dict(record["terms"])}) for record in head["history"]]
            file = self.folder / head["file"]
            if file_digest(file) != head["sha256"]:
                raise ValueError("the digest differs")
            tensors = load_file(file)
        except (ArtifactError, OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise TrainingError(
                f"the saved training state in {self.folder} is damaged",
                found=f"{type(error).__name__}: {error}",
                hint=f"delete {self.folder} to train this stage from its first epoch",
            ) from None
        self._load(tensors)
        self.history = history

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for role, module in self.modules.items():
            for name, value in module.state_dict().items():
                yield f"{role}/{name}", value.detach().cpu().contiguous().clone()
        for index, values in self.optimiser.state_dict()["state"].items():
            for name, value in values.items():
                if value is not None:
                    yield f"optimiser/{index}/{name}", value.detach().cpu().contiguous().clone()

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        for role, module in self.modules.items():
            put_state(module, {n: tensors[f"{role}/{n}"] for n in module.state_dict()})
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser/"):
                _, index, name = key.split("/")
                state.setdefault(int(index), {})[name] = _like(value, parameters[int(index)])
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """The value in the parameter's memory layout, which a fused optimiser step requires."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
