"""Test accuracy of the exported files, with their calibration and worst mistakes; without labels their agreement with
the student in float, with several labels per image their mAP: the only stage that reads the test split.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgekd.data.dataset import Dataset, names_of
from edgekd.data.reader import Reader, open_reader
from edgekd.data.sources import source_named
from edgekd.export import variants
from edgekd.export.model_id import ModelId, labelled
from edgekd.export.onnx_model import OnnxModel
from edgekd.runs import Run, Stage, part_of
from edgekd.runtime.backends import Session, open_reference, reference
from edgekd.runtime.multilabel import MultilabelOutputs, best_thresholds
from edgekd.runtime.preprocess import Floats, Pixels
from edgekd.runtime.statistics import Outputs, most_confused, packed, wilson
from edgekd.stages import _code
from edgekd.stages.answers import float_logits
from edgekd.stages.scores import Rows
from edgekd.store.artifacts import Artifact, Details, Json, read_record, write_json
from edgekd.training.fit import Progress
from edgekd.wording import counted

Shown = Callable[[int, int], None]


class EvaluationDetails(Details):
    """What was evaluated: the digest of each model by its name, and the digest of the data."""

    models: dict[str, str]
    data: str


class Evaluation(Artifact[EvaluationDetails]):
    """`evaluation.json`: the accuracy of exported files on the test split, or their agreement with the float student;
    `images/`: small ones of their mistakes."""

    kind = "evaluation"

    @property
    def rows(self) -> list[Json]:
        """One per model. Raises ArtifactError for a file that is not valid."""
        rows: list[Json] = read_record(self.path / "evaluation.json", Rows)["rows"]
        return rows


# Of the images of mistakes, in pixels.
_SIDE, _FEW_PIXELS = 96, 32
_QUALITY = 80

STAGE = Stage(
    "evaluate",
    "Test accuracy",
    version=6,
    compares=True,
    facts=lambda found: [
        counted(len(found.rows), "file"),
        counted(max(row["samples"] for row in found.rows), "test image"),
    ],
)


def evaluate(
    run: Run, models: Mapping[ModelId, OnnxModel], data: Dataset, heads: Mapping[str, Dataset] | None = None
) -> Evaluation:
    """Evaluate every model on the whole test split.

    Args:
        models: by their identity.
        data: whose test split is used.
        heads: the data sets of additional heads, by name.

    Raises:
        BackendError: an engine refuses a model.
        DataError: a test image cannot be read.
    """
    further = heads or {}
    evaluation = run.stage(
        STAGE,
        Evaluation,
        title=_title(run),
        settings=_code.code_of_reference(),
        inputs={**labelled(models), "data": data, **{f"data-{name}": own for name, own in further.items()}},
        make=lambda out: evaluate_models(models, data, out, heads=further, progress=run.progress(STAGE.name)),
    )
    return run.finish(STAGE, evaluation)


def _title(run: Run) -> str | None:
    """Where the stage measures no accuracy."""
    data = run.recipe.data
    if data.task == "multilabel":
        return "Test mAP"
    return None if source_named(data.source).labelled else "Agreement with fp32"


def evaluate_models(
    models: Mapping[ModelId, OnnxModel],
    data: Dataset,
    out: Path,
    *,
    heads: Mapping[str, Dataset] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run every exported file over the whole test split, with the preprocessing of the data set.

    Args:
        models: by their identity.
        data: whose test split is used.
        heads: the data sets of additional heads, by name; a model with these heads is evaluated on them as well.
        out: an empty folder, which becomes the artifact.
        progress: called with (images done, images in total, the model), where those of additional heads do not count.
    """
    rows = [
        {**name.to_json(), **_row(name, model, data, heads or {}, part_of(progress, number, len(models), str(name)))}
        for number, (name, model) in enumerate(models.items())
    ]
    _add_images(rows, data, out)
    write_json(out / "evaluation.json", {"split": "test", "rows": rows})
    digests = {str(name): model.digest for name, model in models.items()}
    details = EvaluationDetails(models=digests, data=data.digest)
    return Evaluation.seal(out, details=details, metrics={"warnings": _warnings(rows)})


def _warnings(rows: Sequence[Json]) -> list[str]:
    """One line per problem, with the models that have it."""
    models: dict[str, list[str]] = {}
    for row in rows:
        for problem in row["problems"]:
            models.setdefault(problem, []).append(row["model"])
    return [f"{', '.join(names)}: {problem}." for problem, names in models.items()]


def _row(name: ModelId, model: OnnxModel, data: Dataset, heads: Mapping[str, Dataset], shown: Shown | None) -> Json:
    with session_for(name, model) as session:
        row, first = _on_test(session, data, 0, shown), len(data.classes)
        if model.heads:
            row["heads"] = {}
        for head, classes in model.heads.items():
            row["heads"][head] = _on_test(session, heads[head], first)
            first += len(classes)
    return row


def _on_test(session: Session, data: Dataset, first: int, shown: Shown | None = None) -> Json:
    if data.multilabel:
        row = sets_of(session, data, shown)
    elif data.details.answered:
        return agreement_of(session, open_reader(data, "test", shown=shown), data.classes, float_logits(data))
    else:
        row = accuracy_of(session, open_reader(data, "test", shown=shown), data.classes, first=first)
    names = names_of(data, "test", [mistake["row"] for mistake in row["worst"]])
    row["worst"] = [{**mistake, "name": name} for mistake, name in zip(row["worst"], names, strict=True)]
    return row


def _add_images(rows: Sequence[Json], data: Dataset, out: Path) -> None:
    """Write the images of the mistakes, each once, and name their files in the rows."""
    mistakes = [mistake for row in rows for mistake in row["worst"]]
    reader, files = open_reader(data, "test"), {}
    for row in {mistake["row"] for mistake in mistakes}:
        file = write_image(reader.pixels(np.array([row]))[0], out / "images" / str(row))
        files[row] = file.relative_to(out).as_posix()
    for mistake in mistakes:
        mistake["image"] = files[mistake["row"]]


def write_image(pixels: Pixels, place: Path) -> Path:
    """Write an image, not larger than 96 pixels; JPEG, or PNG where it has few pixels, which JPEG would blur.

    Args:
        pixels: (H, W, 3), or (H, W, 1) for greyscale.
        place: the file without its suffix.
    """
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((_SIDE, _SIDE))
    file = place.with_suffix(".png" if max(image.size) <= _FEW_PIXELS else ".jpg")
    file.parent.mkdir(exist_ok=True)
    image.save(file, quality=_QUALITY)
    return file


def sets_of(session: Session, data: Dataset, shown: Shown | None = None) -> Json:
    """What a model of several labels per image is worth on the test split; see edgekd.runtime.multilabel.Summary.

    Its thresholds are chosen on the validation split, for this file, whose scores may differ from another precision's.
    """
    tried, measured = _answers(session, data, "validation"), _answers(session, data, "test", shown)
    thresholds = [round(each, 6) for each in best_thresholds(tried.scores, tried.labels)]
    return {**asdict(measured.summary(thresholds)), "engine": session.engine}


def _answers(session: Session, data: Dataset, split: str, shown: Shown | None = None) -> MultilabelOutputs:
    seen = MultilabelOutputs(data.classes)
    for inputs, labels in open_reader(data, split, shown=shown).batches():
        seen.add(session.bind(inputs)(), labels)
    return seen


def session_for(name: ModelId, model: OnnxModel) -> Session:
    """Open a model in the reference backend. A graph that is meant for another engine is computed as written."""
    runs = reference().activations(platform.machine())
    return open_reference(model.graph, as_written=variants.find(name.variant).activations not in runs)


def agreement_of(session: Session, reader: Reader, classes: tuple[str, ...], expected: Floats) -> Json:
    """How often a model answers as the float network with its 95 % interval, the most frequent other answers, the error
    of its logits, and the signs that it is broken.

    Args:
        session: the model.
        reader: of the images to measure on; their labels are the float network's answers.
        classes: the class names, in the order of the logits.
        expected: (N, C), the float network's logits.

    Returns:
        Among others `logit_error`: the root of the mean square of all differences of logits, relative to that of the
        float network's logits, each image's logits less their mean, which changes no answer.
    """
    seen, done = Outputs(classes), 0
    error, power = 0.0, 0.0
    for inputs, labels in reader.batches():
        logits, wanted = session.bind(inputs)(), expected[done : done + len(labels)]
        seen.add(logits, labels)
        error += float(np.square(_centred(logits) - _centred(wanted)).sum())
        power += float(np.square(_centred(wanted)).sum())
        done += len(labels)
    same, count = int(seen.correct.sum()), len(seen.correct)
    return {
        "agreement": same / count,
        "interval": list(wilson(same, count)),
        "samples": count,
        "engine": session.engine,
        "logit_error": float(np.sqrt(error / power)) if np.isfinite(error) and power > 0.0 else None,
        "problems": seen.problems(of_network=True),
        "confused": _confused(seen, classes),
        "worst": [],
        "correct": packed(seen.correct),
    }


def _centred(logits: Floats) -> npt.NDArray[np.float64]:
    exact: npt.NDArray[np.float64] = logits.astype(np.float64)
    exact -= exact.mean(1, keepdims=True)
    return exact


def _confused(seen: Outputs, classes: tuple[str, ...]) -> list[Json]:
    return [
        {"label": label, "answer": answer, "count": count}
        for label, answer, count in most_confused(seen.confusion, classes)
    ]


def accuracy_of(session: Session, reader: Reader, classes: tuple[str, ...], *, first: int = 0) -> Json:
    """Top-1 accuracy with its 95 % interval, per class and balanced, the most frequent confusions, the calibration, the
    worst mistakes, and for each image whether the answer was right; and the signs that the model has learned nothing.

    Args:
        session: the model.
        reader: of the images to measure on.
        classes: the class names, in the order of the logits.
        first: the column of the logits that belongs to the first class.
    """
    columns = slice(first, first + len(classes))
    seen = Outputs(classes)
    for inputs, labels in reader.batches():
        seen.add(session.bind(inputs)()[:, columns], labels)
    correct, count = int(seen.correct.sum()), len(seen.correct)
    calibration = seen.calibration()
    return {
        "accuracy": correct / count,
        "interval": list(wilson(correct, count)),
        "samples": count,
        "engine": session.engine,
        "balanced_accuracy": seen.balanced_accuracy,
        "majority": dict(zip(("label", "share"), seen.majority, strict=True)),
        "problems": seen.problems(),
        "per_class": {name: asdict(each) for name, each in seen.per_class().items()},
        "calibration": asdict(calibration) if calibration is not None else None,
        "worst": [asdict(mistake) for mistake in seen.worst()],
        "confused": _confused(seen, classes),
        "correct": packed(seen.correct),
    }
