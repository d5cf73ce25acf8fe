"""The bundle: what ships, packed after the latencies are known, since they decide which variant an engine takes."""

from __future__ import annotations

from edgekd.data.dataset import Dataset
from edgekd.export import bundle as bundles
from edgekd.export.bundle import Bundle
from edgekd.models.checkpoint import Checkpoint
from edgekd.runs import Run, Stage
from edgekd.stages import _facts
from edgekd.stages.benchmark import Measurements
from edgekd.stages.evaluate import Evaluation
from edgekd.stages.export import Exported


def _of_bundle(bundle: Bundle) -> list[str]:
    count = sum(file.endswith(".onnx") for file in bundle.manifest.files)
    return [f"{count} {'variant' if count == 1 else 'variants'}", _facts.megabytes(bundle.size_bytes)]


STAGE = Stage("bundle", "Bundle", version=bundles.VERSION, compares=True, facts=_of_bundle)


def bundle(
    run: Run, exported: Exported, student: Checkpoint, scores: Evaluation, measured: Measurements, data: Dataset
) -> Bundle:
    """The graphs that ship, with what was measured on them."""
    name, shipped, models = run.recipe.name, exported.shipped, exported.models
    contents = bundles.Contents(name, shipped, models, student)
    made = run.stage(
        STAGE,
        Bundle,
        settings={"name": name, "variants": {variant: str(model) for variant, model in shipped.items()}},
        inputs={
            **{str(model): models[model] for model in shipped.values()},
            "student": student,
            "evaluation": scores,
            "measurements": measured,
            "data": data,
        },
        make=lambda out: bundles.pack(contents, scores.rows, measured.records, data, out),
    )
    return run.finish(STAGE, made)
