"""The links that make data and networks: what each is keyed by, and what makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from edgekd import plugins, profiles
from edgekd.artifacts import Artifact, Checkpoint, Dataset, Json
from edgekd.data import prepare as preparing
from edgekd.distillation import stage as distillation
from edgekd.models.cost import cost
from edgekd.pruning import stage as pruning
from edgekd.quantization import stage as quantization
from edgekd.quantization.placement import refuse_quantized
from edgekd.settings import (
    ModelSettings,
    RecipeSettings,
    RecoverySettings,
    StepSettings,
    TermSettings,
    TrainSettings,
)
from edgekd.store import Store
from edgekd.training import stages as training
from edgekd.training.fit import Progress


class Console(Protocol):
    """Shows how a stage gets on; the terminal implements it."""

    def progress(self, stage: str, done: int, total: int, note: str) -> None: ...


@dataclass(frozen=True)
class NetworkStages:
    """A recipe's stages in a store. Every method is one stage: reused where an equal one was finished."""

    recipe: RecipeSettings
    store: Store
    console: Console | None = None

    def data(self) -> Dataset:
        settings = self.recipe.data
        # Where the images lie does not matter, what they are does.
        said = settings_json(settings, exclude={"augment", "root", "download"})
        content = plugins.load("dataset", settings.source).fingerprint(settings)
        return self.store.stage(
            Dataset,
            "data",
            version=preparing.VERSION,
            settings={**said, "content": content},
            inputs={},
            make=lambda out: preparing.prepare(settings, out, progress=self._counter("data")),
        )

    def teacher(self, data: Dataset) -> Checkpoint:
        """Trained here, or taken as it is."""
        settings = self.recipe.teacher
        if settings.train is not None:
            return self._trained("teacher", settings, settings.train, data)
        return self.store.stage(
            Checkpoint,
            "teacher",
            version=training.VERSION,
            settings={"model": training.origin_of(settings)},
            inputs={"data": data},
            make=self._checked(data, lambda out: training.adopt(settings, data, out)),
        )

    def baseline(self, data: Dataset) -> Checkpoint | None:
        """The student from labels alone, in the same steps: what distillation has to beat."""
        if not self.recipe.distill.baseline:
            return None
        return self._trained("baseline", self.recipe.student, self.recipe.distill.training, data)

    def student(self, teacher: Checkpoint, data: Dataset) -> Checkpoint:
        settings = self.recipe.distill
        return self._distilled("distill", self.recipe.student, teacher, data, settings, settings.objective)

    def pruned(self, student: Checkpoint) -> Checkpoint | None:
        """Narrower, and not yet recovered."""
        settings = self.recipe.prune
        if settings is None:
            return None
        target, multiple = settings.target, self._multiple()
        return self.store.stage(
            Checkpoint,
            "prune",
            version=pruning.VERSION,
            settings={"target": settings_json(target), "multiple": multiple},
            inputs={"student": student},
            make=lambda out: pruning.prune(student, target, multiple, out),
        )

    def recovered(self, pruned: Checkpoint, teacher: Checkpoint, data: Dataset) -> Checkpoint:
        assert self.recipe.prune is not None
        settings = self.recipe.prune
        return self._distilled("recover", pruned, teacher, data, settings, self._objective(settings))

    def calibrated(self, student: Checkpoint, data: Dataset) -> Checkpoint | None:
        """With int8 quantizers whose scales come from pictures: post-training quantization."""
        settings = self.recipe.quantize
        if settings is None:
            return None
        images = settings.calibration_images
        return self.store.stage(
            Checkpoint,
            "calibrate",
            version=quantization.VERSION,
            settings={"images": images},
            inputs={"student": student, "data": data},
            make=lambda out: quantization.calibrate(student, data, images, out),
        )

    def quantized(self, calibrated: Checkpoint, teacher: Checkpoint, data: Dataset) -> Checkpoint:
        """Trained through the quantizers; with mode ptq the calibrated network as it is."""
        assert self.recipe.quantize is not None
        settings, augment = self.recipe.quantize, self.recipe.data.augment
        if settings.mode == "ptq":
            return calibrated
        objective = self._objective(settings)
        return self.store.stage(
            Checkpoint,
            "quantize",
            version=quantization.VERSION,
            settings={
                **settings_json(settings, exclude={"mode", "calibration_images", "baseline"}),
                "objective": [settings_json(term) for term in objective],
                "augment": settings_json(augment),
            },
            inputs={"teacher": teacher, "calibrated": calibrated, "data": data},
            make=lambda out: quantization.quantize(
                teacher,
                calibrated,
                data,
                settings,
                out,
                objective=objective,
                augment=augment,
                progress=self._progress("quantize"),
            ),
        )

    def _check_models(self, data: Dataset) -> None:
        """Build teacher and student before one is trained: what is wrong with it must not cost the other's training.

        Raises:
            ModelError: arguments, weights or classes do not fit, one is quantized already, or the student cannot be
                pruned or quantized as asked.
            DataError: too few pictures to calibrate on.
        """
        size = training.preprocessing_of(data).image_size
        for model in (self.recipe.teacher, self.recipe.student):
            network, _ = training.initial(model.model_copy(update={"pretrained": False}), data)
            refuse_quantized(network, model.model)
            cost(network, size)
        if self.recipe.prune is not None:
            pruning.check(network, self.recipe.prune.target, self._multiple(), size)
        if self.recipe.quantize is not None:
            counts = data.manifest.details["counts"]
            quantization.check(network, self.recipe.quantize.calibration_images, counts["train"], size)

    def _checked(self, data: Dataset, make: Callable[[Path], Checkpoint]) -> Callable[[Path], Checkpoint]:
        def checked(out: Path) -> Checkpoint:
            self._check_models(data)
            return make(out)

        return checked

    def _distilled(
        self,
        name: str,
        student: ModelSettings | Checkpoint,
        teacher: Checkpoint,
        data: Dataset,
        settings: StepSettings,
        objective: Sequence[TermSettings],
    ) -> Checkpoint:
        augment = self.recipe.data.augment
        begun: Mapping[str, Artifact] = {"student": student} if isinstance(student, Checkpoint) else {}
        origin = {"model": training.origin_of(student)} if isinstance(student, ModelSettings) else {}

        def make(out: Path) -> Checkpoint:
            return distillation.distill(
                teacher,
                student,
                data,
                settings,
                out,
                objective=objective,
                augment=augment,
                progress=self._progress(name),
            )

        return self.store.stage(
            Checkpoint,
            name,
            version=distillation.VERSION,
            settings={
                **settings_json(settings, exclude={"baseline", "target", "device", "multiple"}),
                **origin,
                "objective": [settings_json(term) for term in objective],
                "augment": settings_json(augment),
            },
            inputs={"teacher": teacher, **begun, "data": data},
            make=make if begun else self._checked(data, make),
        )

    def _objective(self, settings: RecoverySettings) -> tuple[TermSettings, ...]:
        return settings.objective if settings.objective is not None else self.recipe.distill.objective

    def _multiple(self) -> int:
        assert self.recipe.prune is not None
        return self.recipe.prune.multiple or profiles.find(self.recipe.prune.device).channel_multiple

    def _trained(self, name: str, model: ModelSettings, settings: TrainSettings, data: Dataset) -> Checkpoint:
        augment = self.recipe.data.augment
        return self.store.stage(
            Checkpoint,
            name,
            version=training.VERSION,
            settings={**settings_json(settings), "model": training.origin_of(model), "augment": settings_json(augment)},
            inputs={"data": data},
            make=self._checked(
                data,
                lambda out: training.train(model, data, settings, out, augment=augment, progress=self._progress(name)),
            ),
        )

    def _progress(self, stage: str) -> Progress | None:
        return partial(self.console.progress, stage) if self.console is not None else None

    def _counter(self, stage: str) -> _Counter | None:
        return _Counter(self.console, stage) if self.console is not None else None


@dataclass(frozen=True)
class _Counter:
    """A progress that only counts."""

    console: Console
    stage: str

    def __call__(self, done: int, total: int) -> None:
        self.console.progress(self.stage, done, total, "images")


def settings_json(settings: BaseModel, exclude: set[str] | None = None) -> Json:
    return settings.model_dump(mode="json", exclude=exclude)
