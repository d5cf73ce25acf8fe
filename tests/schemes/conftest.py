"""Small real trainings that the schemes share: one store, so that data and teacher are made once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import chains
import pytest

from edgekd import schemes
from edgekd.cli._terminal import Terminal
from edgekd.data.dataset import Dataset
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.load import from_mapping
from edgekd.runs import Run
from edgekd.stages import data as data_stage
from edgekd.stages import prune, quantize
from edgekd.stages import train as train_stage
from edgekd.stages.distill import Distilled
from edgekd.store.plan import Plan
from edgekd.store.store import Store
from edgekd.training.fit import accuracy
from edgekd.training.train import evaluation_loader

STEPS = {"batch_size": 64, "learning_rate": 0.1, "precision": "fp32"}
RECIPE: dict[str, Any] = {
    "name": "scheme",
    "data": {"source": "digits", "image_size": 16, "validation": 0.15, "test": 0.25, "augment": {"flip": False}},
    "teacher": {"model": "cifar/resnet14", "train": {**STEPS, "epochs": 8}},
    "student": {"model": "cifar/resnet8"},
    "distill": {**STEPS, "epochs": 4},
}


@pytest.fixture(scope="session")
def schemes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schemes")


@pytest.fixture
def stages(schemes_folder: Path) -> Callable[..., Run]:
    """From overrides (`"distill.epochs=2"`, `"distill.scheme.name=online"`) to a chain over the shared store."""

    def make(*overrides: str, **sections: Any) -> Run:
        recipe = from_mapping({**RECIPE, **sections}, overrides)
        # A terminal listens, as in a run: it has to have words for whatever a scheme makes.
        store = Store(schemes_folder, Terminal(quiet=True))
        return Run(recipe.settings, store, stages=(schemes.STAGE, prune.STAGE, quantize.STAGE))

    return make


@pytest.fixture
def distilled() -> Callable[[Run], Distilled]:
    """Everything up to the student, as a run makes it."""
    return chains.distilled


@pytest.fixture
def score() -> Callable[[Checkpoint, Dataset], float]:
    """Accuracy on the test split, which the claims are about."""

    def measure(checkpoint: Checkpoint, data: Dataset) -> float:
        return accuracy(checkpoints.load(checkpoint), evaluation_loader(data, "test"))

    return measure


@pytest.fixture
def gain(stages: Callable[..., Run], score: Callable[[Checkpoint, Dataset], float]) -> Callable[..., float]:
    """From overrides to the accuracy over the baseline (labels only) in the same steps, the mean over three seeds."""

    def measure(*overrides: str) -> float:
        gains = []
        for seed in range(3):
            chain = stages(*overrides, f"distill.seed={seed}", teacher=None)
            data = data_stage.data(chain)
            gains.append(score(chains.distilled(chain).student, data) - score(train_stage.baseline(chain, data), data))
        return sum(gains) / len(gains)

    return measure


class Killed(Exception):
    pass


class KillAt:
    """A console that ends the process' work at a step of a stage."""

    Killed = Killed

    def __init__(self, step: int, stage: str = "distill") -> None:
        self.step, self.stage = step, stage

    def progress(self, stage: str, done: int, total: int, note: str) -> None:
        if (stage, done) == (self.stage, self.step):
            raise Killed

    def warn(self, message: str) -> None:
        pass


@pytest.fixture
def kill_at() -> type[KillAt]:
    return KillAt


@pytest.fixture
def planned() -> Callable[[Run, Path], Mapping[str, str]]:
    """Every stage up to the student by its name, and what a run in that folder would do with it."""

    def plan(chain: Run, folder: Path) -> Mapping[str, str]:
        store = Plan(folder)
        chains.distilled(Run(chain.recipe, store))
        return {stage.name: stage.state for stage in store.stages}

    return plan
