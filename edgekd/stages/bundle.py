"""The bundle that ships: packed after the benchmark, because latencies decide which variant an engine prefers."""

from __future__ import annotations

from edgekd.data.dataset import Dataset
from edgekd.export import bundle as bundles
from edgekd.export.bundle import Bundle
from edgekd.models.checkpoint import Checkpoint
from edgekd.runs import Run, Stage
from edgekd.stages import _code, _facts
from edgekd.stages.benchmark import Measurements
from edgekd.stages.evaluate import Evaluation
from edgekd.stages.export import Exported


def _bundle_facts(bundle: Bundle) -> list[str]:
    count = sum(file.endswith(".onnx") for file in bundle.manifest.files)
    return [f"{count} {'variant' if count == 1 else 'variants'}", _facts.megabytes(bundle.size_bytes)]


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
    contents = bundles.Contents(name, shipped, models, student)
    packed = run.stage(
        STAGE,
        Bundle,
        settings={
            "name": name,
            "variants": {variant: str(model) for variant, model in shipped.items()},
            **_code.code_of_reference(),
        },
        inputs={
            **{str(model): models[model] for model in shipped.values()},
            "student": student,
            "evaluation": scores,
            "measurements": measured,
            "data": data,
        },
        make=lambda out: bundles.pack(contents, scores.rows, measured.records, data, out),
    )
    return run.finish(STAGE, packed)
