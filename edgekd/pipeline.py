"""The chain: from a recipe to a measured bundle and its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from edgekd.devices import profiles
from edgekd.distillation.declared import inherited
from edgekd.errors import UsageError
from edgekd.export import variants
from edgekd.export.bundle import publish
from edgekd.export.model_id import ModelId
from edgekd.recipe.load import Recipe
from edgekd.runtime.backends import builders
from edgekd.stages import Console, Stages
from edgekd.store.artifacts import (
    Artifact,
    Bundle,
    Checkpoint,
    Dataset,
    Evaluation,
    Measurements,
    OnnxModel,
    write_json,
)
from edgekd.store.store import Listener, Plan, PlannedStage, Store

_FIRST_KEYS = {"prune": "prune.target.macs=0.5", "quantize": "quantize.mode=qad"}
# A link of its own runs the chain up to itself; what is finished is reused.
Link = Literal["train", "distill", "prune", "quantize", "export"]


@dataclass(frozen=True)
class Networks:
    """Every trained network; None where the recipe leaves a link out.

    Attributes:
        teacher: whose answers pruned and quantized networks learn; without one, the student's own.
        baseline: the student from labels alone.
        student: distilled.
        pruned: narrowed and recovered; `cut` is what it was before recovery.
        calibrated: with int8 quantizers, not trained through them.
        quantized: with int8 quantizers, as it ships.
        others: what the scheme made beside the student, by role.
        doubts: what spoke against the teacher before the student was trained.
        heads: the data of the student's further heads, by name.
    """

    teacher: Checkpoint | None
    baseline: Checkpoint | None
    student: Checkpoint
    others: Mapping[str, Checkpoint] = field(default_factory=dict)
    cut: Checkpoint | None = None
    pruned: Checkpoint | None = None
    calibrated: Checkpoint | None = None
    quantized: Checkpoint | None = None
    doubts: tuple[str, ...] = ()
    heads: Mapping[str, Dataset] = field(default_factory=dict)

    @property
    def final(self) -> Checkpoint:
        """The one that ships in float."""
        return self.pruned or self.student

    @property
    def roles(self) -> dict[str, Checkpoint]:
        """Those that are exported, in the chain's order; `ptq` is the calibrated one beside the quantized."""
        ptq = self.calibrated if self.calibrated is not self.quantized else None
        named = {
            "teacher": self.teacher,
            **self.others,
            "baseline": self.baseline,
            "student": self.student,
            "pruned": self.pruned,
            "ptq": ptq,
            "quantized": self.quantized,
        }
        return {role: checkpoint for role, checkpoint in named.items() if checkpoint is not None}


@dataclass(frozen=True)
class Made:
    """Every artifact of a chain.

    Attributes:
        models: every exported file.
        shipped: the bundle's variants, each with the model that it is.
        measurements: of the graphs, in each engine that runs them here.
        engines: the same of the engines built here; None where nothing here builds engines.
    """

    data: Dataset
    networks: Networks
    models: Mapping[ModelId, OnnxModel]
    shipped: Mapping[str, ModelId]
    evaluation: Evaluation
    measurements: Measurements
    bundle: Bundle
    engines: Measurements | None = None


@dataclass(frozen=True)
class RunResult:
    """What a run left in `folder`: `bundle` is what an app loads, `report` what a person opens."""

    made: Made
    folder: Path
    bundle: Path
    report: Path


def chain(stages: Stages) -> Made:
    data = stages.data()
    networks = train(stages, data)
    models = export(stages, networks, data)
    shipped = ships(stages, networks)
    scores = stages.evaluated(models, data, networks.heads)
    measurements = stages.measured(models)
    bundle = stages.bundled(shipped, models, networks.final, scores, measurements, data)
    return Made(data, networks, models, shipped, scores, measurements, bundle)


def train(stages: Stages, data: Dataset, *, until: Link = "quantize", baseline: bool = True) -> Networks:
    teacher = stages.teacher(data)
    alone = stages.baseline(data) if baseline else None
    doubts = stages.doubts(teacher, alone)
    distilled = stages.student(teacher, data)
    made = Networks(teacher, alone, distilled.student, distilled.others, doubts=doubts, heads=distilled.heads)
    objective = inherited(distilled.objective or stages.recipe.distill.objective)
    seen = distilled.learns_from or data
    if until == "distill":
        return made
    lesson = (teacher or made.student, seen, objective, distilled.further)
    if (cut := stages.pruned(made.student)) is not None:
        made = replace(made, cut=cut, pruned=stages.recovered(cut, *lesson))
    if until == "prune":
        return made
    if (calibrated := stages.calibrated(made.final, seen)) is not None:
        made = replace(made, calibrated=calibrated, quantized=stages.quantized(calibrated, *lesson))
    return made


def export(stages: Stages, networks: Networks, data: Dataset) -> dict[ModelId, OnnxModel]:
    """Every network in the variants that are made of its checkpoint, and what ships in all of the recipe's."""
    models, shipped = dict[ModelId, OnnxModel](), ships(stages, networks)
    for variant in variants.ordered(stages.recipe.variants):
        if variant.base is not None:
            role = shipped[variant.name].role
            base = models[ModelId(role, variant.base)]
            models[ModelId(role, variant.name)] = stages.exported(ModelId(role, variant.name), base, data)
            continue
        for role, checkpoint in _exported(stages, networks, quantized=variant.needs_quantize).items():
            models[ModelId(role, variant.name)] = stages.exported(ModelId(role, variant.name), checkpoint, data)
    return models


def _exported(stages: Stages, networks: Networks, *, quantized: bool) -> dict[str, Checkpoint]:
    """The networks that are exported in float, or those with quantizers."""
    settings = stages.recipe.quantize
    left_out = {"ptq"} if settings is not None and not settings.baseline else set[str]()
    roles = networks.roles.items()
    return {role: each for role, each in roles if (role in ("ptq", "quantized")) == quantized and role not in left_out}


def ships(stages: Stages, networks: Networks) -> dict[str, ModelId]:
    """The bundle's variants, each with its model."""
    final = "pruned" if networks.pruned is not None else "student"
    roles = {name: "quantized" if variants.find(name).needs_quantize else final for name in stages.recipe.variants}
    return {name: ModelId(role, name) for name, role in roles.items()}


def run(recipe: Recipe, folder: Path, *, listener: Listener | None = None, console: Console | None = None) -> RunResult:
    """Run a recipe, or what an earlier run of it left undone.

    Raises:
        RunLockedError: another run is working in the folder.
        EdgekdError: as each stage says; what was finished stays.
    """
    store = Store(folder, listener)
    with store.lock():
        stages = Stages(recipe.settings, store, console)
        made = chain(stages)
        publish(made.bundle, folder / "bundle")
        report = _report(recipe, made, store, folder)
        # Last, and with everything else safe: an engine builder is the one link that may be here or not.
        if _builds_engines(recipe):
            made = replace(made, engines=stages.engines(made.bundle, made.shipped))
            report = _report(recipe, made, store, folder)
    return RunResult(made, folder, folder / "bundle", report)


def _builds_engines(recipe: Recipe) -> bool:
    measured_here = any(profiles.find(device).kind == "local" for device in recipe.settings.bench.devices)
    return measured_here and bool(builders())


def _report(recipe: Recipe, made: Made, store: Store, folder: Path) -> Path:
    from edgekd.report.collect import collect
    from edgekd.report.html import write

    record = collect(recipe, made, store.log, folder / "bundle")
    write_json(folder / "report.json", record)
    return write(record, folder / "report.html")


def run_link(
    link: Link, recipe: Recipe, folder: Path, *, listener: Listener | None = None, console: Console | None = None
) -> Artifact:
    """Run the chain up to one link: the checkpoint that it makes, or for "export" the bundle, published in `folder`.

    Raises:
        UsageError: the recipe has no section for this link.
        RunLockedError, EdgekdError: as run().
    """
    if link in ("prune", "quantize") and getattr(recipe.settings, link) is None:
        raise UsageError(
            f"the recipe {recipe.settings.name} has no {link} section",
            hint=f"add one, or begin it on the command line: --set {_FIRST_KEYS[link]}",
        )
    store = Store(folder, listener)
    with store.lock():
        stages = Stages(recipe.settings, store, console)
        if link == "export":
            bundle = chain(stages).bundle
            publish(bundle, folder / "bundle")
            return bundle
        data = stages.data()
        if link == "train":
            return _teacher(stages, data)
        networks = train(stages, data, until=link, baseline=False)
    found = {"distill": networks.student, "prune": networks.pruned, "quantize": networks.quantized}[link]
    assert found is not None
    return found


def _teacher(stages: Stages, data: Dataset) -> Checkpoint:
    teacher = stages.teacher(data)
    if teacher is None:
        raise UsageError(
            f"the recipe {stages.recipe.name} has no teacher section", hint="add one, or use edgekd distill"
        )
    return teacher


def plan(recipe: Recipe, folder: Path) -> list[PlannedStage]:
    """What run() would do, and why. Runs nothing, writes nothing.

    Raises:
        ArtifactError: a finished stage's files were changed.
    """
    store = Plan(folder)
    stages = Stages(recipe.settings, store)
    made = chain(stages)
    if _builds_engines(recipe):
        stages.engines(made.bundle, made.shipped)
    return store.stages
