"""The chain: from a recipe to a measured bundle and its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekd import schemes
from edgekd.errors import UnknownNameError, UsageError
from edgekd.export.bundle import Bundle, decisions, publish
from edgekd.preflight import preflight, warnings_of
from edgekd.recipe.load import Recipe
from edgekd.recipe.settings import RecipeSettings
from edgekd.report.result import Result, exported_networks
from edgekd.report.verdict import Verdict
from edgekd.runs import Console, Run, Stage
from edgekd.stages.answers import answers
from edgekd.stages.benchmark import benchmark_models
from edgekd.stages.bundle import bundle
from edgekd.stages.data import data
from edgekd.stages.engines import engines
from edgekd.stages.evaluate import evaluate
from edgekd.stages.export import export
from edgekd.stages.prune import prune
from edgekd.stages.quantize import quantize
from edgekd.stages.reparameterize import reparameterize, reparameterize_compared
from edgekd.stages.train import baseline, teacher
from edgekd.store.artifacts import Artifact, write_json
from edgekd.store.plan import Outline, Plan, PlannedStage
from edgekd.store.store import Listener, Store

Chain = Callable[[Run], Result]


def chain(run: Run) -> Result:
    """Every stage in order, up to the bundle; engines are built from it afterwards."""
    images = data(run)
    preflight(run, images)
    noted = warnings_of(run, images)
    images = answers(run, images)
    trained_teacher = teacher(run, images)
    labels_only = baseline(run, images)
    warnings = (*noted, *schemes.teacher_warnings(run, trained_teacher, labels_only))
    student = schemes.distill(run, trained_teacher, images)
    student = reparameterize(run, student, images)
    continuation = schemes.continuation(run, student, trained_teacher, images)
    pruned = prune(run, student.student, continuation)
    final = pruned.recovered if pruned is not None else student.student
    quantized = quantize(run, final, continuation)
    folded_teacher, labels_only = reparameterize_compared(run, trained_teacher, labels_only, images)
    networks = exported_networks(folded_teacher, student, labels_only, pruned)
    exported = export(run, networks, quantized, images)
    scores = evaluate(run, exported.models, images, student.heads)
    measured = benchmark_models(run, exported.models, exported.shipped)
    packed = bundle(run, exported, final, scores, measured, images)
    return Result(images, networks, final, exported, scores, measured, packed, pruned, quantized, warnings)


@dataclass(frozen=True)
class RunResult:
    """What a run left in `folder`; printed, it is the report's headline with the paths of report and bundle.

    Attributes:
        bundle: what an app loads.
        report: what a person opens.
        headline: the result in one sentence.
        budget: whether the recipe's budget was met, `budget.met`; None where it has none.
    """

    made: Result = field(repr=False)
    folder: Path
    bundle: Path
    report: Path
    headline: str
    budget: Verdict | None = None

    def __str__(self) -> str:
        return f"{self.headline}\nReport  {self.report}\nBundle  {self.bundle}"

    @property
    def problems(self) -> tuple[str, ...]:
        """Why exported files cannot be believed, each with the files' names; empty where all have learned something."""
        return tuple(self.made.scores.metrics["warnings"])

    @property
    def decisions(self) -> dict[str, str]:
        """Why each engine here has its default variant, by its title with the machine."""
        return decisions(self.made.bundle.details.reasons)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The exports that failed, each with its reason; empty where all were made."""
        return self.made.exported.left_out


def run(
    recipe: Recipe,
    folder: Path,
    *,
    listener: Listener | None = None,
    console: Console | None = None,
    chain: Chain = chain,
) -> RunResult:
    """Run a recipe; finished stages of an earlier run are reused.

    Args:
        folder: of the run; created if needed.
        listener: notified when a stage begins and when it is done.
        console: shows progress and warnings.
        chain: the stages; default: edgekd's own.

    Raises:
        RunLockedError: another run is working in the folder.
        UsageError: see stages_of().
        EdgekdError: see the stages; finished stages are kept.
    """
    store = Store(folder, listener)
    with store.lock():
        current = Run(schemes.adapted(recipe.settings), store, console, stages=stages_of(recipe, chain))
        _announce(current, chain)
        made = chain(current)
        publish(made.bundle, folder / "bundle")
        report, headline, budget = _report(recipe, made, store, folder)
        # Last, when everything else is stored: an engine builder is available on some machines only.
        built = engines(current, made.bundle, made.exported.shipped)
        if built is not None:
            made = replace(made, engines=built)
            report, headline, budget = _report(recipe, made, store, folder)
    return RunResult(made, folder, folder / "bundle", report, headline, budget)


def run_until(
    name: str,
    recipe: Recipe,
    folder: Path,
    *,
    listener: Listener | None = None,
    console: Console | None = None,
    chain: Chain = chain,
) -> Artifact:
    """Run the chain up to one stage.

    Args:
        name: of the stage, e.g. "teacher", "prune"; a bundle is also published in `folder`.

    Returns:
        The stage's artifact: for "prune" the recovered network, for "quantize" the one that ships.

    Raises:
        UnknownNameError: the chain has no such stage.
        UsageError: the recipe has no section for it, or the stage has no single artifact.
        RunLockedError, EdgekdError: as run().
    """
    store = Store(folder, listener)
    current = _run_until(name, recipe, store, console, chain)
    with store.lock():
        _announce(current, chain)
        try:
            chain(current)
        except _Reached as reached:
            found = reached.artifact
        else:  # the stages of the chain were listed by running it
            raise AssertionError(f"the chain ended without its stage {name}")
        if found is None:
            raise UsageError(f"the stage {name} makes no single artifact", hint="name a later one: --until bundle")
        if isinstance(found, Bundle):
            publish(found, folder / "bundle")
    return found


def plan(
    recipe: Recipe, folder: Path, *, until: str | None = None, console: Console | None = None, chain: Chain = chain
) -> list[PlannedStage]:
    """What run() or run_until() would do, and why. Runs nothing, writes nothing.

    Where the data is there, the networks are built and checked.

    Args:
        until: the stage that it would end with; None: all of the chain.
        console: shows warnings.

    Raises:
        ArtifactError: a finished stage's files were changed.
        UnknownNameError, UsageError: as run_until().
        EdgekdError: what the preflight finds.
    """
    store = Plan(folder)
    if until is not None:
        with suppress(_Reached):
            chain(_run_until(until, recipe, store, console, chain))
        return store.stages
    current = Run(schemes.adapted(recipe.settings), store, console, stages=stages_of(recipe, chain))
    made = chain(current)
    engines(current, made.bundle, made.exported.shipped)
    return store.stages


def stages_of(recipe: Recipe, chain: Chain = chain) -> tuple[Stage, ...]:
    """The stages that a chain goes through for a recipe, in order.

    Raises:
        UsageError: the recipe has a section, added to edgekd's own, that none of them uses.
    """
    found: list[Stage] = []
    chain(Run(recipe.settings, Outline(), reached=lambda stage, _: found.append(stage)))
    added = type(recipe.settings).model_fields.keys() - RecipeSettings.model_fields.keys()
    for section in sorted(added - {stage.section for stage in found}):
        if getattr(recipe.settings, section) is not None:
            raise UsageError(
                f"no stage of the chain uses the section {section}",
                allowed=", ".join(stage.name for stage in found),
                hint="pass chain= a function that runs its stage",
            )
    return tuple(found)


def _run_until(name: str, recipe: Recipe, store: Store, console: Console | None, chain: Chain) -> Run:
    """A run that raises _Reached behind the stage of this name."""
    stages = {stage.name: stage for stage in stages_of(recipe, chain)}
    if name not in stages:
        raise UnknownNameError("stage", name, stages)
    _require_section(recipe, stages[name])
    return Run(_without_comparison(recipe, stages[name]), store, console, _stop_at(name), _up_to(name, stages))


def _announce(run: Run, chain: Chain) -> None:
    """Tell the console which trainings the run has."""
    if run.console is None:
        return
    outline = Outline()
    with suppress(_Reached):
        chain(replace(run, store=outline, console=None))
    run.console.expect(outline.trainings)


def _up_to(name: str, stages: Mapping[str, Stage]) -> tuple[Stage, ...]:
    """The stages, of which those behind the named one need nothing of this machine: they may run on another."""
    last = list(stages).index(name)
    return tuple(
        stage if place <= last else replace(stage, check_machine=None) for place, stage in enumerate(stages.values())
    )


class _Reached(Exception):
    """The stage that a run ends with is done."""

    def __init__(self, artifact: Artifact | None) -> None:
        super().__init__()
        self.artifact = artifact


def _stop_at(name: str) -> Callable[[Stage, Artifact | None], None]:
    def reached(stage: Stage, artifact: Artifact | None) -> None:
        if stage.name == name:
            raise _Reached(artifact)

    return reached


def _require_section(recipe: Recipe, stage: Stage) -> None:
    if stage.section is not None and getattr(recipe.settings, stage.section) is None:
        raise UsageError(
            f"the recipe {recipe.settings.name} has no {stage.section} section",
            hint=f"add one, or begin it on the command line: --set '{stage.section}={stage.example}'",
        )


def _without_comparison(recipe: Recipe, stage: Stage) -> RecipeSettings:
    """Without the baseline, which is only compared with finished networks, where the run ends before any comparison."""
    settings = schemes.adapted(recipe.settings)
    if stage.compares:
        return settings
    return settings.model_copy(update={"distill": settings.distill.model_copy(update={"baseline": False})})


def _report(recipe: Recipe, made: Result, store: Store, folder: Path) -> tuple[Path, str, Verdict | None]:
    """The page, its headline, and the verdict on the recipe's budget."""
    from edgekd.report.collect import collect
    from edgekd.report.headline import headline
    from edgekd.report.html import write
    from edgekd.report.record import parse

    record = collect(recipe, made, store.log, folder / "bundle")
    write_json(folder / "report.json", record)
    page, parsed = write(record, folder / "report.html"), parse(record)
    return page, headline(parsed), parsed.budget
