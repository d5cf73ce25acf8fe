"""What distillation gains over training on labels only: `EDGEKD_DATA=… python benchmarks/distillation.py [--json]`.

A CIFAR ResNet teaches MobileNetV2 and ShuffleNetV2: baseline (labels only), plain KD, and the objective that BEST
names, in the same steps, over several seeds; and plain KD with the teacher's outputs stored for four views. Accuracy on
the test split, of the last epoch, never of a best one.

--images-from names the image set, a folder of Parquet files in EDGEKD_DATA. cifar10_jpeg: CIFAR-10 as JPEG, whose
figures compare only with each other; the teacher is a ResNet of EDGEKD_DATA/weights, fine-tuned for some epochs.
cifar100: lossless, comparable with published figures where the recipe is; its teacher is trained from scratch.

With --semi instead: 500 labels and everything else unlabelled; with --online: two students that teach each other,
without a teacher. Finished trainings are reused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from edgekd import schemes
from edgekd.bench.environment import environment
from edgekd.data.dataset import Dataset
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.load import from_mapping
from edgekd.runs import Run
from edgekd.stages import data as data_stage
from edgekd.stages import train as train_stage
from edgekd.store.store import Done, Store
from edgekd.training.fit import accuracy
from edgekd.training.host import best_device
from edgekd.training.train import evaluation_loader

STUDENTS = {
    "MobileNetV2 x0.35": {"model": "torchvision/mobilenet_v2", "arguments": {"width_mult": 0.35}, "stem": "small"},
    "ShuffleNetV2 x0.5": {"model": "torchvision/shufflenet_v2_x0_5", "stem": "small"},
}
KD = [{"method": "kd", "temperature": 4, "weight": 0.9}, {"method": "cross_entropy", "weight": 0.1}]
# Picked on the validation split, one seed of short trainings: attention beside KD was ahead of ten other objectives.
BEST = [*KD, {"method": "attention", "weight": 100}]
LABELS = 500
BASELINE = "baseline (labels only)"


@dataclass(frozen=True)
class ImageSet:
    """Images in EDGEKD_DATA and how a teacher for them comes about.

    Attributes:
        title: for the table's caption.
        weights: what the teacher of a name begins with, in EDGEKD_DATA; None: from scratch.
    """

    title: str
    weights: str | None
    teacher_learning_rate: float


IMAGE_SETS = {
    "cifar10_jpeg": ImageSet("CIFAR-10 (JPEG)", "weights/cifar10_{teacher}.pth", 0.02),
    "cifar100": ImageSet("CIFAR-100", None, 0.1),
}


def recipe(student: dict[str, Any], seed: int, arguments: argparse.Namespace, **distill: Any) -> dict[str, Any]:
    # Fixed, so that no run differs from another by what its machine was fastest in at the time.
    fixed = {"precision": "fp32", "memory_format": "channels_last"}
    steps = {"batch_size": 128, "learning_rate": 0.1, "seed": seed, **fixed}
    images = IMAGE_SETS[arguments.images_from]
    root = arguments.data / arguments.images_from
    training = {"epochs": arguments.teacher_epochs, "batch_size": 128, "learning_rate": images.teacher_learning_rate}
    teacher: dict[str, Any] = {"model": f"cifar/{arguments.teacher}", "train": training}
    if images.weights is not None:
        teacher["checkpoint"] = str(arguments.data / images.weights.format(teacher=arguments.teacher))
    return {
        "name": "distillation",
        "data": {"source": "parquet", "root": str(root), "image_size": 32, "limit": arguments.images},
        "teacher": teacher,
        "student": student,
        "distill": {**steps, "epochs": arguments.epochs, **distill},
    }


def score(checkpoint: Checkpoint | None, data: Dataset) -> float:
    """Percent of the test split."""
    assert checkpoint is not None, "the recipes above leave out neither the teacher nor the baseline"
    device = best_device()
    network = checkpoints.load(checkpoint).to(device)
    return 100 * accuracy(network, evaluation_loader(data, "test"), device)


class Shown:
    """Prints to stderr what is being trained."""

    def begin(self, stage: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {stage}", file=sys.stderr, flush=True)

    def end(self, done: Done) -> None:
        pass


def compare(student: dict[str, Any], seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Test accuracy of everything trained with one seed."""
    store = Store(arguments.out, Shown())
    scores: dict[str, float] = {}
    stored = {"store": "on", "views": 4}
    for name, objective, outputs in (
        ("KD", KD, "off"),
        ("KD, stored views", KD, stored),
        ("best of ours", BEST, "off"),
    ):
        checked = from_mapping(recipe(student, seed, arguments, objective=objective, teacher_outputs=outputs))
        stages = Run(checked.settings, store)
        data = data_stage.data(stages)
        teacher = train_stage.teacher(stages, data)
        if "teacher" not in scores:
            scores["teacher"] = score(teacher, data)
            scores[BASELINE] = score(train_stage.baseline(stages, data), data)
        scores[name] = score(schemes.distill(stages, teacher, data).student, data)
    return scores


def semi_supervised(student: dict[str, Any], seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """500 labels only, and with the teacher's outputs on all the other images, in the same steps."""
    scheme = {"name": "semi-supervised", "labels": LABELS}
    checked = from_mapping(recipe(student, seed, arguments, objective=KD, scheme=scheme))
    stages = Run(checked.settings, Store(arguments.out, Shown()))
    data = data_stage.data(stages)
    made = schemes.distill(stages, train_stage.teacher(stages, data), data)
    alone = score(made.others["labelsonly"], data)
    return {f"{LABELS} labels only": alone, "semi-supervised": score(made.student, data)}


def online(student: dict[str, Any], seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Each from labels only, and two that teach each other; the paper's objective."""
    mapping = {
        key: value for key, value in recipe(student, seed, arguments, scheme="online").items() if key != "teacher"
    }
    stages = Run(from_mapping(mapping).settings, Store(arguments.out, Shown()))
    data = data_stage.data(stages)
    alone = score(train_stage.baseline(stages, data), data)
    made = schemes.distill(stages, None, data)
    return {
        BASELINE: alone,
        "one of two": score(made.student, data),
        "the other": score(made.others["student2"], data),
    }


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    names = list(next(iter(rows.values()))[0])
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for student, seeds in rows.items():
        cells = [_spread([scores[name] for scores in seeds]) for name in names]
        lines.append(f"| {student} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if len(values) == 1 or len(set(values)) == 1:
        return f"{values[0]:.2f}"
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


def add_training(parser: argparse.ArgumentParser) -> None:
    """The options that say what a teacher and its students are trained on, and for how long."""
    parser.add_argument("--images-from", choices=IMAGE_SETS, default="cifar10_jpeg", help="a folder in EDGEKD_DATA")
    parser.add_argument("--images", type=int, default=20_000, help="training images; classes in proportion")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--teacher", choices=("resnet20", "resnet56"), default="resnet56")
    parser.add_argument("--teacher-epochs", type=int, default=3)


def find_data(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Sets `arguments.data`; ends the program where the image set is not there."""
    if "EDGEKD_DATA" not in os.environ:
        parser.error("EDGEKD_DATA is not set: it names the folder with the image sets and weights")
    arguments.data = Path(os.environ["EDGEKD_DATA"]).absolute()
    if not (arguments.data / arguments.images_from).is_dir():
        parser.error(f"EDGEKD_DATA={arguments.data} has no folder {arguments.images_from}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    add_training(parser)
    parser.add_argument("--students", default=",".join(STUDENTS), help="comma-separated names")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--semi", dest="measure", action="store_const", const=semi_supervised, default=compare)
    instead.add_argument("--online", dest="measure", action="store_const", const=online)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-distillation"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    find_data(parser, arguments)
    rows = {
        name: [arguments.measure(STUDENTS[name], seed, arguments) for seed in range(arguments.seeds)]
        for name in arguments.students.split(",")
    }
    machine = environment()
    if arguments.json:
        print(json.dumps({"environment": machine.model_dump(), "rows": rows, "best": BEST}, indent=2))
        return
    print(table(rows))
    print(
        f"\n{IMAGE_SETS[arguments.images_from].title}, {arguments.images:,} training images, "
        f"{arguments.epochs} epochs, {arguments.seeds} seeds; "
        f"mean ± standard deviation, test accuracy in percent; {machine.cpu}, {machine.cores} cores"
    )


if __name__ == "__main__":
    main()
