"""Test accuracy of the exported files: the one stage that touches the test split."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgekd.data.dataset import Dataset
from edgekd.data.reader import Reader, open_reader
from edgekd.export import variants
from edgekd.export.model_id import ModelId, labelled
from edgekd.export.onnx_model import OnnxModel
from edgekd.runs import Run, Stage
from edgekd.runtime.backends import Session, open_reference, reference
from edgekd.store.artifacts import Artifact, Details, Json, read_json, write_json

_Z95 = 1.959964


class EvaluationDetails(Details):
    """What was scored: the digest of each model by its name, and that of the data."""

    models: dict[str, str]
    data: str


class Evaluation(Artifact[EvaluationDetails]):
    """`evaluation.json`: the accuracy of exported files on the test split."""

    kind = "evaluation"

    @property
    def rows(self) -> list[Json]:
        rows: list[Json] = read_json(self.path / "evaluation.json")["rows"]
        return rows


STAGE = Stage(
    "evaluate",
    "Test accuracy",
    version=3,
    compares=True,
    facts=lambda found: [f"{len(found.rows)} files", f"{max(row['samples'] for row in found.rows):,} test images"],
)


def evaluate(
    run: Run, models: Mapping[ModelId, OnnxModel], data: Dataset, heads: Mapping[str, Dataset] | None = None
) -> Evaluation:
    """Every model on the whole test split.

    Args:
        heads: the data of further heads, by name.
    """
    further = heads or {}
    made = run.stage(
        STAGE,
        Evaluation,
        settings={},
        inputs={**labelled(models), "data": data, **{f"data-{name}": own for name, own in further.items()}},
        make=lambda out: evaluate_models(models, data, out, heads=further),
    )
    return run.finish(STAGE, made)


def evaluate_models(
    models: Mapping[ModelId, OnnxModel], data: Dataset, out: Path, *, heads: Mapping[str, Dataset] | None = None
) -> Evaluation:
    """Run every model over the whole test split, as the device would: its own file, its own preprocessing.

    Args:
        heads: the data of further heads, by name; a model that has them is measured on their test splits too.
        out: an empty folder, which becomes the artifact.
    """
    rows = [{**name.to_json(), **_row(name, model, data, heads or {})} for name, model in models.items()]
    write_json(out / "evaluation.json", {"split": "test", "rows": rows})
    digests = {str(name): model.digest for name, model in models.items()}
    return Evaluation.seal(out, details=EvaluationDetails(models=digests, data=data.digest))


def _row(name: ModelId, model: OnnxModel, data: Dataset, heads: Mapping[str, Dataset]) -> Json:
    with session_for(name, model) as session:
        row, first = _on_test(session, data, 0), len(data.classes)
        if model.heads:
            row["heads"] = {}
        for head, classes in model.heads.items():
            row["heads"][head] = _on_test(session, heads[head], first)
            first += len(classes)
    return row


def _on_test(session: Session, data: Dataset, first: int) -> Json:
    return accuracy_of(session, open_reader(data, "test"), data.classes, first=first)


def session_for(name: ModelId, model: OnnxModel) -> Session:
    """The reference backend as it runs a model on this machine; a graph for other engines is computed as written."""
    runs = reference().activations(platform.machine())
    return open_reference(model.graph, as_written=variants.find(name.variant).activations not in runs)


def accuracy_of(session: Session, reader: Reader, classes: tuple[str, ...], *, first: int = 0) -> Json:
    """Top-1 accuracy with its 95 % interval, the accuracy per class, and the most frequent confusions.

    Args:
        reader: of the images to measure on.
        first: the column of the logits that belongs to the first class.
    """
    columns = slice(first, first + len(classes))
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for inputs, labels in reader.batches():
        answers = session.bind(inputs)()[:, columns].argmax(1)
        np.add.at(confusion, (labels, answers), 1)
    right, count = int(np.trace(confusion)), int(confusion.sum())
    low, high = wilson(right, count)
    recalls = confusion.diagonal() / np.maximum(1, confusion.sum(1))
    return {
        "accuracy": right / count,
        "interval": [low, high],
        "samples": count,
        "engine": session.engine,
        "per_class": {name: round(float(recall), 6) for name, recall in zip(classes, recalls, strict=True)},
        "confused": _most_confused(confusion, classes),
    }


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927): honest near 0 and 1, where most accuracies lie."""
    share = right / count
    shrink = 1.0 + _Z95**2 / count
    centre = (share + _Z95**2 / (2 * count)) / shrink
    half = _Z95 * math.sqrt(share * (1 - share) / count + _Z95**2 / (4 * count**2)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)


def _most_confused(confusion: np.ndarray[tuple[int, ...], np.dtype[np.int64]], classes: tuple[str, ...]) -> list[Json]:
    errors = confusion - np.diag(confusion.diagonal())
    worst = np.argsort(-errors, axis=None, kind="stable")[:5]
    pairs = [divmod(int(flat), len(classes)) for flat in worst]
    return [
        {"label": classes[label], "answer": classes[answer], "count": int(errors[label, answer])}
        for label, answer in pairs
        if errors[label, answer]
    ]
