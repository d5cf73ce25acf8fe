"""The links that make data and networks: what each is keyed by, and what makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from pydantic import BaseModel
from torch import nn

from edgekd import plugins, profiles
from edgekd.artifacts import Artifact, Checkpoint, Dataset, Json, TeacherOutputs
from edgekd.data import prepare as preparing
from edgekd.distillation import outputs as storing
from edgekd.distillation import schemes, teachers
from edgekd.distillation import stage as distillation
from edgekd.distillation.graft import graft
from edgekd.distillation.schemes import Distilled
from edgekd.distillation.terms import build_terms, on_logits
from edgekd.models.architecture import Architecture
from edgekd.models.cost import cost
from edgekd.pruning import stage as pruning
from edgekd.quantization import stage as quantization
from edgekd.quantization.placement import refuse_quantized
from edgekd.settings import (
    DataSettings,
    DistillSettings,
    ModelSettings,
    OutputSettings,
    RecipeSettings,
    RecoverySettings,
    StepSettings,
    TaughtSettings,
    TeacherSettings,
    TermSettings,
    TrainSettings,
)
from edgekd.store import A, Plan, Store, resume_folder
from edgekd.training import stages as training
from edgekd.training.fit import Progress


class Console(Protocol):
    """Shows how a stage gets on; the terminal implements it."""

    def progress(self, stage: str, done: int, total: int, note: str) -> None: ...
    def warn(self, message: str) -> None: ...


@dataclass(frozen=True)
class NetworkStages:
    """A recipe's stages in a store. Every method is one stage: reused where an equal one was finished."""

    recipe: RecipeSettings
    store: Store
    console: Console | None = None

    def data(self) -> Dataset:
        return self.prepared("data", self.recipe.data)

    def prepared(self, name: str, settings: DataSettings) -> Dataset:
        # Where the images lie does not matter, what they are does.
        said = settings_json(settings, exclude={"augment", "root", "download"})
        content = plugins.load("dataset", settings.source).fingerprint(settings)
        return self.store.stage(
            Dataset,
            name,
            version=preparing.VERSION,
            settings={**said, "content": content},
            inputs={},
            make=lambda out: preparing.prepare(settings, out, progress=self._counter(name)),
        )

    def teacher(self, data: Dataset) -> Checkpoint | None:
        """None where the scheme does without."""
        return None if self.recipe.teacher is None else self.taught("teacher", self.recipe.teacher, data)

    def taught(self, name: str, settings: TeacherSettings, data: Dataset) -> Checkpoint:
        """Trained here, or taken as it is."""
        measure = partial(teachers.calibration_of, data=data)
        if settings.train is not None:
            return self.trained(name, settings, settings.train, data, measure=measure)
        return self.store.stage(
            Checkpoint,
            name,
            version=training.VERSION,
            settings={"model": training.origin_of(settings)},
            inputs={"data": data},
            make=self.checked(data, lambda out: training.adopt(settings, data, out, measure=measure)),
        )

    def baseline(self, data: Dataset) -> Checkpoint | None:
        """The student from labels alone, in the same steps: what distillation has to beat."""
        if not self.recipe.distill.baseline:
            return None
        return self.trained("baseline", self.recipe.student, self.recipe.distill.training, data)

    def doubts(self, teacher: Checkpoint | None, baseline: Checkpoint | None) -> tuple[str, ...]:
        """What speaks against the scheme's teacher, told before a student learns from it; in a plan there is none."""
        settings = self.recipe.distill
        if teacher is None or isinstance(self.store, Plan) or not plugins.load("scheme", settings.scheme.name).TEACHER:
            return ()
        found = teachers.doubts(teacher, settings.objective)
        if baseline is not None:
            found += teachers.doubts_beside(teacher, baseline, assisted=settings.scheme.name == "assistant")
        if self.console is not None:
            for doubt in found:
                self.console.warn(doubt)
        return tuple(found)

    def student(self, teacher: Checkpoint | None, data: Dataset) -> Distilled:
        """As the recipe's scheme makes it."""
        said = self.recipe.distill.scheme
        scheme = plugins.load("scheme", said.name)
        made: Distilled = scheme.distill(self, teacher, data, schemes.parameters_of(said))
        return made

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
        return self.distilled("recover", pruned, teacher, data, settings, self._objective(settings))

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
                progress=self.progress("quantize"),
            ),
        )

    def _check_models(self, data: Dataset) -> None:
        """Build all networks before one is trained: what is wrong with one must not cost another's training.

        Raises:
            ModelError: arguments, weights or classes do not fit, one is quantized already, or the student cannot be
                pruned or quantized as asked.
            UnknownNameError: the objective names a layer that is not there.
            DataError: too few pictures to calibrate on.
        """
        recipe, size = self.recipe, training.preprocessing_of(data).image_size
        for model in schemes.models_over(recipe.distill.scheme, data.classes):
            self._built(model, data)
        teacher = self._built(recipe.teacher, data)[0] if recipe.teacher is not None else None
        student, architecture = self._built(recipe.student, data)
        if teacher is not None:
            graft(student, teacher, architecture, recipe.distill.objective, size)
            build_terms(recipe.distill.objective, distillation.networks_for(student, teacher, data))
        if recipe.prune is not None:
            pruning.check(student, recipe.prune.target, self._multiple(), size)
        if recipe.quantize is not None:
            counts = data.manifest.details["counts"]
            quantization.check(student, recipe.quantize.calibration_images, counts["train"], size)

    def _built(self, model: ModelSettings, data: Dataset) -> tuple[nn.Module, Architecture]:
        network, architecture = training.initial(model.model_copy(update={"pretrained": False}), data)
        refuse_quantized(network, model.model)
        cost(network, training.preprocessing_of(data).image_size)
        return network, architecture

    def checked(self, data: Dataset, make: Callable[[Path], A]) -> Callable[[Path], A]:
        def checked(out: Path) -> A:
            self._check_models(data)
            return make(out)

        return checked

    def distilled(
        self,
        name: str,
        student: ModelSettings | Checkpoint,
        teacher: Checkpoint,
        data: Dataset,
        settings: StepSettings,
        objective: Sequence[TermSettings],
        *,
        cross_view: bool = False,
    ) -> Checkpoint:
        """On one teacher's answers, from the start or from a checkpoint."""
        begun: Mapping[str, Artifact] = {"student": student} if isinstance(student, Checkpoint) else {}
        said = {
            **({"model": training.origin_of(student)} if isinstance(student, ModelSettings) else {}),
            "objective": [settings_json(term) for term in objective],
            **({"cross_view": True} if cross_view else {}),
        }
        precision = settings.teacher_precision if isinstance(settings, TaughtSettings) else "auto"
        if precision != "auto":
            said["teacher_precision"] = precision
        wanted = settings.teacher_outputs if isinstance(settings, DistillSettings) else OutputSettings()
        stored = self.outputs(teacher, data, wanted, settings) if wanted.store == "on" else None
        if wanted.store == "auto":
            said["teacher_outputs"] = settings_json(wanted)

        def make(out: Path) -> Checkpoint:
            outputs = stored
            if wanted.store == "auto" and distillation.reads_logits_only(objective) and not cross_view:
                augment = self.recipe.data.augment
                decision = storing.decide(resume_folder(out), teacher, data, wanted, settings, augment=augment)
                outputs = self.outputs(teacher, data, wanted, settings) if decision.stored else None
            return distillation.distill(
                teacher,
                student,
                data,
                settings,
                out,
                objective=objective,
                augment=self.recipe.data.augment,
                cross_view=cross_view,
                outputs=outputs,
                teacher_precision=precision,
                progress=self.progress(name),
            )

        return self.made(
            name,
            version=distillation.VERSION,
            settings=settings,
            said=said,
            inputs={"teacher": teacher, **begun, "data": data, **({"outputs": stored} if stored else {})},
            make=make,
        )

    def outputs(
        self, teacher: Checkpoint, data: Dataset, wanted: OutputSettings, settings: StepSettings
    ) -> TeacherOutputs:
        """What a teacher says to the views that `settings`' seed draws; any student of it may read them."""
        augment = self.recipe.data.augment
        return self.store.stage(
            TeacherOutputs,
            "teacher-outputs",
            version=storing.VERSION,
            settings={
                "views": wanted.views,
                "top_k": wanted.top_k,
                "seed": settings.seed,
                "augment": settings_json(augment),
            },
            inputs={"teacher": teacher, "data": data},
            make=lambda out: storing.store(
                teacher, data, wanted, settings, out, augment=augment, progress=self.progress("teacher outputs")
            ),
        )

    def made(
        self,
        name: str,
        *,
        version: int,
        settings: StepSettings,
        said: Json,
        inputs: Mapping[str, Artifact],
        make: Callable[[Path], Checkpoint],
    ) -> Checkpoint:
        """A network that is trained with an objective of its own; see schemes.Links."""
        steps = settings.model_dump(mode="json", include=set(StepSettings.model_fields))
        return self.store.stage(
            Checkpoint,
            name,
            version=version,
            settings={**steps, **said, "augment": settings_json(self.recipe.data.augment)},
            inputs=inputs,
            make=self.checked(cast(Dataset, inputs["data"]), make),
        )

    def _objective(self, settings: RecoverySettings) -> tuple[TermSettings, ...]:
        """Layers may be gone or narrower by now; answers are not."""
        if settings.objective is not None:
            return settings.objective
        return on_logits(self.recipe.distill.objective) or DistillSettings().objective

    def _multiple(self) -> int:
        assert self.recipe.prune is not None
        return self.recipe.prune.multiple or profiles.find(self.recipe.prune.device).channel_multiple

    def trained(
        self,
        name: str,
        model: ModelSettings,
        settings: TrainSettings,
        data: Dataset,
        *,
        measure: training.Measure | None = None,
    ) -> Checkpoint:
        """From labels alone; `measure`: see training.train()."""
        augment = self.recipe.data.augment
        return self.store.stage(
            Checkpoint,
            name,
            version=training.VERSION,
            settings={**settings_json(settings), "model": training.origin_of(model), "augment": settings_json(augment)},
            inputs={"data": data},
            make=self.checked(
                data,
                lambda out: training.train(
                    model, data, settings, out, augment=augment, progress=self.progress(name), measure=measure
                ),
            ),
        )

    def progress(self, stage: str) -> Progress | None:
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
