"""The bundle that ships: packed after the benchmark, because latencies decide which variant an engine prefers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekd import units
from edgekd.data.dataset import Dataset
from edgekd.export import bundle as bundles
from edgekd.export.accuracy_budget import AccuracyBudget
from edgekd.export.bundle import Bundle
from edgekd.export.model_id import ModelId
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import RecipeSettings
from edgekd.runs import Run, Stage
from edgekd.runtime.comparison import difference
from edgekd.runtime.statistics import Difference
from edgekd.stages import _code
from edgekd.stages.benchmark import Measurements
from edgekd.stages.distill import STUDENT
from edgekd.stages.evaluate import Evaluation
from edgekd.stages.export import Exported
from edgekd.stages.prune import RECOVERED
from edgekd.stages.quantize import QUANTIZED
from edgekd.stages.train import BASELINE, TEACHER
from edgekd.store.artifacts import Json
from edgekd.wording import counted


def _bundle_facts(bundle: Bundle) -> list[str]:
    count = sum(file.endswith(".onnx") for file in bundle.manifest.files)
    return [counted(count, "variant"), units.size(bundle.size_bytes)]


STAGE = Stage("bundle", "Bundle", version=bundles.VERSION, compares=True, facts=_bundle_facts)


def bundle(
    run: Run, exported: Exported, student: Checkpoint, scores: Evaluation, measured: Measurements, data: Dataset
) -> Bundle:
    """Pack the graphs that ship, with their accuracy and latency.

    Args:
        exported: all exported graphs, and which of them ship.
        student: the float network that ships.
        scores: the graphs' test accuracy.
        measured: the graphs' latency.
        data: its validation images become the bundle's test vectors.

    Raises:
        BackendError: no engine on this machine computes a graph as it is written.
    """
    name, shipped, models = run.recipe.name, exported.shipped, exported.models
    budget = accuracy_budget(run.recipe)

    def make(out: Path) -> Bundle:
        lost = accuracy_lost(shipped, scores.rows, advice=_advice(run.recipe))
        warnings = (*worse_than_baseline(scores.rows), *lost)
        contents = bundles.Contents(name, shipped, models, student, warnings, budget)
        return bundles.pack(contents, scores.rows, measured.records, data, out, turns=measured.turns)

    packed = run.stage(
        STAGE,
        Bundle,
        settings={
            "name": name,
            "variants": {variant: str(model) for variant, model in shipped.items()},
            **({"budget": [budget.limit, str(budget.reference)]} if budget is not None else {}),
            **_code.code_of_reference(),
        },
        inputs={
            **{str(model): models[model] for model in shipped.values()},
            "student": student,
            "evaluation": scores,
            "measurements": measured,
            "data": data,
        },
        make=make,
    )
    return run.finish(STAGE, packed)


def accuracy_budget(recipe: RecipeSettings) -> AccuracyBudget | None:
    """What a variant that comes first may lose; against what, as the budget is judged: see edgekd.report.budget."""
    budget = recipe.budget
    if budget is None:
        return None
    if budget.accuracy_drop is not None:
        reference = TEACHER.name if recipe.teacher is not None else STUDENT.name
        return AccuracyBudget(budget.accuracy_drop, ModelId(reference, "fp32"))
    return AccuracyBudget(budget.agreement) if budget.agreement is not None else None


def accuracy_lost(
    shipped: Mapping[str, ModelId], rows: Sequence[Json], *, advice: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """A warning about the files that ship and are certainly much worse than the student was before compression.

    Args:
        shipped: the bundle's files.
        rows: the evaluation's.
        advice: what to do about it, by the stage that caused it: "pruning" or "int8".
    """
    known = {ModelId.of(row): row for row in rows}
    before = next((row for name, row in known.items() if name.role == STUDENT.name), None)
    if before is None:
        return ()
    lost, causes = [], set()
    for name in shipped.values():
        gap = difference(known[name], before)
        if not gap.much_worse:
            continue
        parts = _parts(name, known, before)
        shares = ", ".join(f"{100 * part.value:+.1f} by {stage}" for stage, part in parts.items())
        lost.append(f"{name} ({100 * gap.value:+.1f} points{f': {shares}' if len(parts) > 1 else ''})")
        # Several stages may lose a little each: then the worst of them.
        much = {stage for stage, part in parts.items() if part.much_worse}
        causes |= much or {min(parts, key=lambda stage: parts[stage].value)}
    if not lost:
        return ()
    what = "accuracy" if "accuracy" in before else "agreement with fp32"
    steps = "; ".join(text for stage, text in (advice or {}).items() if stage in causes) or "compress less"
    return (
        f"Compression cost much {what} against the student before it: {', '.join(lost)}. "
        f"{steps[0].upper()}{steps[1:]}.",
    )


def _parts(name: ModelId, known: Mapping[ModelId, Json], before: Json) -> dict[str, Difference]:
    """What each stage before a file changed of its score, by the stage's name."""
    pruned = known.get(ModelId(RECOVERED.name, "fp32"))
    if name.role != QUANTIZED.name:
        return {"pruning" if name.role == RECOVERED.name else name.variant: difference(known[name], before)}
    if pruned is None:
        return {"int8": difference(known[name], before)}
    return {"pruning": difference(pruned, before), "int8": difference(known[name], pruned)}


def worse_than_baseline(rows: Sequence[Json]) -> tuple[str, ...]:
    """A warning where distillation did harm: the student is certainly worse than the same network on labels only.

    Args:
        rows: the evaluation's.
    """
    known = {name.role: row for row in rows if (name := ModelId.of(row)).variant == "fp32"}
    if not {STUDENT.name, BASELINE.name} <= known.keys():
        return ()
    gap = difference(known[STUDENT.name], known[BASELINE.name])
    if gap.high >= 0.0:
        return ()
    return (
        f"The student is certainly worse than the baseline, which was trained on labels only with the same settings: "
        f"{100 * gap.value:+.1f} points ({100 * gap.low:+.1f} to {100 * gap.high:+.1f}). A teacher's losses are larger "
        "than that of labels: lower distill.learning_rate, or the weights and temperatures in distill.objective.",
    )


def _advice(recipe: RecipeSettings) -> dict[str, str]:
    """How to lose less, by the stage that lost it and what the recipe does."""
    advice = {"pruning": "train longer in prune (epochs, a smaller batch_size), or prune less"}
    if recipe.quantize is not None:
        ptq = recipe.quantize.mode == "ptq"
        advice["int8"] = (
            "raise quantize.calibration_images, or set quantize.mode: qad" if ptq else "train longer in quantize"
        )
    return advice
