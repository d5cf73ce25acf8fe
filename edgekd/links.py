"""What the chain and its schemes make networks with: each method is one stage of a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from pydantic import BaseModel

from edgekd import plugins
from edgekd.data import prepare as preparing
from edgekd.distillation import outputs as storing
from edgekd.distillation import stage as distillation
from edgekd.distillation import teachers
from edgekd.preflight import check_networks
from edgekd.recipe.settings import (
    AugmentSettings,
    DataSettings,
    DistillSettings,
    ModelSettings,
    OutputSettings,
    Precision,
    RecipeSettings,
    StepSettings,
    TaughtSettings,
    TeacherSettings,
    TermSettings,
    TrainSettings,
)
from edgekd.store.artifacts import Artifact, Checkpoint, Dataset, Json, TeacherOutputs
from edgekd.store.store import A, Store, resume_folder
from edgekd.training import stages as training
from edgekd.training.fit import Progress


class Console(Protocol):
    """Shows how a stage gets on; the terminal implements it."""

    def progress(self, stage: str, done: int, total: int, note: str) -> None: ...
    def warn(self, message: str) -> None: ...


@dataclass(frozen=True)
class Links:
    """Stages over a recipe, reused where an equal one was finished; what schemes see of it: schemes.Links."""

    recipe: RecipeSettings
    store: Store
    console: Console | None = None
    _looked: list[str] = field(default_factory=list, repr=False, compare=False)

    def prepared(self, name: str, settings: DataSettings) -> Dataset:
        # Where the images lie does not matter, what they are does.
        said = settings_json(settings, exclude={"augment", "root", "download"})
        content = plugins.load("source", settings.source).fingerprint(settings)
        return self.store.stage(
            Dataset,
            name,
            version=preparing.VERSION,
            settings={**said, "content": content},
            inputs={},
            make=lambda out: preparing.prepare(settings, out, progress=self._counter(name)),
        )

    def taught(
        self,
        name: str,
        settings: TeacherSettings,
        data: Dataset,
        *,
        augment: AugmentSettings | None = None,
        main: Dataset | None = None,
    ) -> Checkpoint:
        """Trained here, or taken as it is; see schemes.Links."""
        measure = partial(teachers.calibration_of, data=data)
        if settings.train is not None:
            return self.trained(name, settings, settings.train, data, measure=measure, augment=augment, main=main)
        return self.store.stage(
            Checkpoint,
            name,
            version=training.VERSION,
            settings={"model": training.origin_of(settings)},
            inputs={"data": data},
            make=self.checked(main or data, lambda out: training.adopt(settings, data, out, measure=measure)),
        )

    def checked(self, data: Dataset, make: Callable[[Path], A]) -> Callable[[Path], A]:
        """`make`, behind a look at all networks of the recipe, the first time that something is to be trained."""

        def checked(out: Path) -> A:
            if not self._looked:
                check_networks(self.recipe, data)
                self._looked.append(data.digest)
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
        begun: Mapping[str, Artifact] = {} if isinstance(student, ModelSettings) else {"student": student}
        said = {
            **({"model": training.origin_of(student)} if isinstance(student, ModelSettings) else {}),
            "objective": [settings_json(term) for term in objective],
            **({"cross_view": True} if cross_view else {}),
        }
        precision = precision_in(settings)
        wanted = settings.teacher_outputs if isinstance(settings, DistillSettings) else OutputSettings()
        stored = self.outputs(teacher, data, wanted, settings) if wanted.store == "on" else None
        if wanted.store == "auto":
            said["teacher_outputs"] = settings_json(wanted)

        def make(out: Path) -> Checkpoint:
            outputs: TeacherOutputs | None = stored
            decision: storing.Decision | None = None
            if wanted.store == "auto" and (why := distillation.why_live(objective, cross_view)) is not None:
                decision = storing.Decision(False, why)
            elif wanted.store == "auto":
                augment = self.recipe.data.augment
                decision = storing.decide(
                    resume_folder(out), teacher, data, wanted, settings, augment=augment, precision=precision
                )
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
                decision=decision,
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
                "teacher_precision": precision_in(settings),
            },
            inputs={"teacher": teacher, "data": data},
            make=lambda out: storing.store(
                teacher,
                data,
                wanted,
                settings,
                out,
                augment=augment,
                precision=precision_in(settings),
                progress=self.progress("teacher outputs"),
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
        steps = settings.model_dump(mode="json", include=set(TaughtSettings.model_fields))
        return self.store.stage(
            Checkpoint,
            name,
            version=version,
            settings={**steps, **said, "augment": settings_json(self.recipe.data.augment)},
            inputs=inputs,
            make=self.checked(cast(Dataset, inputs["data"]), make),
        )

    def trained(
        self,
        name: str,
        model: ModelSettings,
        settings: TrainSettings,
        data: Dataset,
        *,
        measure: training.Measure | None = None,
        augment: AugmentSettings | None = None,
        main: Dataset | None = None,
    ) -> Checkpoint:
        """From labels alone; `measure`: see training.train(), `augment` and `main`: see schemes.Links.taught()."""
        varied = augment or self.recipe.data.augment
        return self.store.stage(
            Checkpoint,
            name,
            version=training.VERSION,
            settings={**settings_json(settings), "model": training.origin_of(model), "augment": settings_json(varied)},
            inputs={"data": data},
            make=self.checked(
                main or data,
                lambda out: training.train(
                    model, data, settings, out, augment=varied, progress=self.progress(name), measure=measure
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


def precision_in(settings: StepSettings) -> Precision:
    """In which a teacher beside this training answers."""
    return settings.teacher_precision if isinstance(settings, TaughtSettings) else "auto"


def settings_json(settings: BaseModel, exclude: set[str] | None = None) -> Json:
    return settings.model_dump(mode="json", exclude=exclude)
