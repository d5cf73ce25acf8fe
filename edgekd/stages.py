"""What each link of the chain is keyed by, and what makes it. The order is pipeline.py's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from edgekd import evaluation, measuring, plugins
from edgekd.artifacts import Bundle, Checkpoint, Dataset, Evaluation, Json, Measurements, OnnxModel
from edgekd.bench.environment import environment, fingerprint
from edgekd.data import prepare as preparing
from edgekd.distillation import stage as distillation
from edgekd.export import bundle as bundles
from edgekd.export import onnx as exports
from edgekd.settings import ModelSettings, RecipeSettings, Settings, TrainSettings
from edgekd.store import Store, is_pending
from edgekd.training import stages as training
from edgekd.training.fit import Progress


class Console(Protocol):
    """Shows how a stage gets on; the terminal implements it."""

    def progress(self, stage: str, done: int, total: int, note: str) -> None: ...


@dataclass(frozen=True)
class Stages:
    """A recipe's stages in a store. Every method is one stage: reused where an equal one was finished."""

    recipe: RecipeSettings
    store: Store
    console: Console | None = None

    def data(self) -> Dataset:
        settings = self.recipe.data
        # Where the images lie does not matter, what they are does.
        said = _json(settings, exclude={"augment", "root", "download"})
        content = plugins.load("dataset", settings.source).fingerprint(settings)
        return self.store.stage(
            Dataset,
            "data",
            version=preparing.VERSION,
            settings={**said, "content": content},
            inputs={},
            make=lambda out: preparing.prepare(settings, out, progress=self._counter("data")),
        )

    def check_models(self, data: Dataset) -> None:
        """Build teacher and student once: what is wrong with the student must not cost the teacher's training.

        Raises:
            ModelError: arguments, weights or classes do not fit.
        """
        if is_pending(data):
            return
        for model in (self.recipe.teacher, self.recipe.student):
            training.initial(model.model_copy(update={"pretrained": False}), data)

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
            make=lambda out: training.adopt(settings, data, out),
        )

    def baseline(self, data: Dataset) -> Checkpoint | None:
        """The student from labels alone, in the same steps: what distillation has to beat."""
        if not self.recipe.distill.baseline:
            return None
        return self._trained("baseline", self.recipe.student, self.recipe.distill.training, data)

    def student(self, teacher: Checkpoint, data: Dataset) -> Checkpoint:
        settings, augment = self.recipe.distill, self.recipe.data.augment
        model = self.recipe.student
        return self.store.stage(
            Checkpoint,
            "distill",
            version=distillation.VERSION,
            settings={
                **_json(settings, exclude={"baseline"}),
                "model": training.origin_of(model),
                "augment": _json(augment),
            },
            inputs={"teacher": teacher, "data": data},
            make=lambda out: distillation.distill(
                teacher, model, data, settings, out, augment=augment, progress=self._progress("distill")
            ),
        )

    def exported(self, role: str, checkpoint: Checkpoint, data: Dataset) -> OnnxModel:
        settings = self.recipe.export
        return self.store.stage(
            OnnxModel,
            f"export-{role}-fp32",
            version=exports.VERSION,
            settings={"opset": settings.opset, "tolerance": _json(settings.tolerance["fp32"])},
            inputs={"checkpoint": checkpoint, "data": data},
            make=lambda out: exports.onnx_from_checkpoint(checkpoint, data, settings, out),
        )

    def halved(self, model: OnnxModel, data: Dataset) -> OnnxModel:
        settings = self.recipe.export
        return self.store.stage(
            OnnxModel,
            "export-student-fp16",
            version=exports.VERSION,
            settings={"opset": settings.opset, "tolerance": _json(settings.tolerance["fp16"])},
            inputs={"model": model, "data": data},
            make=lambda out: exports.fp16_from_fp32(model, data, settings, out),
        )

    def evaluated(self, models: Mapping[str, OnnxModel], data: Dataset) -> Evaluation:
        return self.store.stage(
            Evaluation,
            "evaluate",
            version=evaluation.VERSION,
            settings={},
            inputs={**models, "data": data},
            make=lambda out: evaluation.evaluate_models(models, data, out),
        )

    def bundled(
        self, variants: Mapping[str, OnnxModel], student: Checkpoint, scores: Evaluation, data: Dataset
    ) -> Bundle:
        name = self.recipe.name
        return self.store.stage(
            Bundle,
            "bundle",
            version=bundles.VERSION,
            settings={"name": name},
            inputs={**variants, "student": student, "evaluation": scores, "data": data},
            make=lambda out: bundles.pack(name, variants, student, scores, data, out),
        )

    def measured(self, models: Mapping[str, OnnxModel]) -> Measurements:
        settings = self.recipe.bench
        return self.store.stage(
            Measurements,
            "bench",
            version=measuring.VERSION,
            settings={**_json(settings), "machine": fingerprint(environment())},
            inputs=models,
            make=lambda out: measuring.measure_models(models, settings, out, progress=self._progress("bench")),
        )

    def _trained(self, name: str, model: ModelSettings, settings: TrainSettings, data: Dataset) -> Checkpoint:
        augment = self.recipe.data.augment
        return self.store.stage(
            Checkpoint,
            name,
            version=training.VERSION,
            settings={**_json(settings), "model": training.origin_of(model), "augment": _json(augment)},
            inputs={"data": data},
            make=lambda out: training.train(model, data, settings, out, augment=augment, progress=self._progress(name)),
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


def _json(settings: Settings, exclude: set[str] | None = None) -> Json:
    return settings.model_dump(mode="json", exclude=exclude)
