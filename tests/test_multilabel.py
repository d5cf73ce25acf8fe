"""Images with any number of the classes, from a table to a bundle that an app loads."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import load_file, save_file

import edgekd
from edgekd import pipeline
from edgekd.cli import group
from edgekd.errors import DataError, ModelError, RecipeError, UsageError
from edgekd.pipeline import RunResult
from edgekd.recipe.load import from_mapping
from edgekd.runtime import load
from edgekd.runtime.average_precision import mean_average_precision
from edgekd.store.artifacts import read_json

CLASSES = ("blue", "green", "red")
NETS = """
from torch import nn


def build(num_classes, width=8):
    def block(a, b):
        return nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()

    return nn.Sequential(
        *block(3, width), *block(width, 2 * width),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(2 * width, num_classes),
    )
"""


def write_images(folder: Path, count: int = 240) -> Path:
    """Grey noise with a red, a green and a blue square, each there or not, and the table of which are.

    One in twelve is wrongly labelled as red, or as not.
    """
    generator = np.random.default_rng(0)
    (folder / "photos").mkdir()
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label"])
        for number in range(count):
            pixels = generator.integers(60, 100, (12, 12, 3)).astype(np.uint8)
            has = [name for name in CLASSES if generator.random() < {"red": 0.5, "green": 0.3, "blue": 0.2}[name]]
            for name in has:
                top, left = generator.integers(0, 8, 2)
                pixels[top : top + 4, left : left + 4, ("red", "green", "blue").index(name)] = 255
            Image.fromarray(pixels).save(folder / f"photos/{number}.png")
            labels = has if number % 12 else sorted({*has} ^ {"red"})
            rows.writerow([f"photos/{number}.png", "|".join(labels)])
    return folder / "labels.csv"


def recipe(root: Path) -> dict[str, Any]:
    steps = {"batch_size": 16, "learning_rate": 0.05}
    return {
        "name": "sets",
        "data": {
            "source": "csv-file",
            "root": str(root),
            "task": "multilabel",
            "image_size": 12,
            "test": 0.3,
            "validation": 0.2,
        },
        "teacher": {
            "model": f"{root.parent}/nets.py:build",
            "arguments": {"width": 12},
            "train": {**steps, "epochs": 6},
        },
        "student": {"model": f"{root.parent}/nets.py:build"},
        "distill": {**steps, "epochs": 5, "baseline": False},
        "prune": {"target": {"macs": 0.9}, "multiple": 1, "epochs": 1},
        "quantize": {"epochs": 1, "calibration_images": 32, "baseline": False},
        "export": {"variants": ["fp32", "int8", "int8-asym"]},
        "bench": {"batch_sizes": [1], "seconds": 0.02, "warmup_seconds": 0.0},
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    folder = tmp_path_factory.mktemp("sets")
    (folder / "nets.py").write_text(NETS)
    return folder, edgekd.run(recipe(write_images(folder)), folder / "run", allow_code=True)


def test_every_stage_learns_and_measures_sets(finished: tuple[Path, RunResult]) -> None:
    _, result = finished
    rows = {row["model"]: row for row in result.made.scores.rows}
    assert set(rows) == {"teacher-fp32", "student-fp32", "pruned-fp32", "quantized-int8", "quantized-int8-asym"}
    for row in rows.values():
        assert row["mAP"] > 0.8 and row["interval"][0] <= row["mAP"] <= row["interval"][1] and row["problems"] == []
        each = [found["average_precision"] for found in row["per_class"].values()]
        assert row["mAP"] == pytest.approx(np.mean(each)) and len(each) == 3
        assert row["calibration"]["labels"] == 3 * row["samples"]
        assert "accuracy" not in row and len(row["replicates"]) == 1000
    student = result.made.networks
    metrics = {role.name: checkpoint.metrics for role, checkpoint in student.items()}
    assert all(each["score"] == "mAP" for each in metrics.values() if "validation_accuracy" in each)
    assert "binary_kd" in metrics["student"]["history"][0]["terms"]


def test_the_bundle_answers_with_all_classes_above_their_thresholds(finished: tuple[Path, RunResult]) -> None:
    folder, result = finished
    with (folder / "labels.csv").open(newline="") as file:
        truth = {row["file"]: set(row["label"].split("|")) - {""} for row in csv.DictReader(file)}
    rows = {row["variant"]: row for row in result.made.scores.rows if row["role"] in ("pruned", "quantized")}
    for variant in ("fp32", "int8-asym"):
        with load(result.bundle, variant=variant) as model:
            assert model.manifest.task == "multilabel" and model.classes == CLASSES
            assert list(model.manifest.variants[variant].thresholds) == rows[variant]["thresholds"]
            found = model([folder / name for name in truth])
            model.verify()
        right = [set(prediction.labels) == wanted for prediction, wanted in zip(found, truth.values(), strict=True)]
        assert np.mean(right) > 0.6, "of 8 sets"
        scores = np.stack([prediction.scores for prediction in found])
        labels = np.array([[name in wanted for name in CLASSES] for wanted in truth.values()])
        assert mean_average_precision(scores, labels) > 0.8
    record = read_json(result.bundle / "bundle.json")["variants"]["fp32"]
    assert not {"replicates", "worst"} & set(record["metrics"]) and "bins" not in record["metrics"]["calibration"]
    each = {name: found["average_precision"] for name, found in rows["fp32"]["per_class"].items()}
    assert record["metrics"]["per_class"] == pytest.approx(each, abs=1e-4)
    assert record["thresholds"] == rows["fp32"]["thresholds"]
    card = (result.bundle / "card.md").read_text()
    assert "| variant | file | mAP |" in card and ".labels" in card and "one of its classes" not in card


def test_the_wrong_labels_are_shown_with_their_images(finished: tuple[Path, RunResult]) -> None:
    folder, result = finished
    rows = [row for row in result.made.scores.rows if row["worst"]]
    assert len(rows) == 5, "one in twelve labels is wrong"
    with (folder / "labels.csv").open(newline="") as file:
        truth = {row["file"]: set(row["label"].split("|")) - {""} for row in csv.DictReader(file)}
    wrongly_labelled = [int(Path(each["name"]).stem) % 12 == 0 for each in rows[0]["worst"]]
    assert wrongly_labelled[0], "the teacher's most confident mistake is a wrong label"
    for row in rows:
        for each in row["worst"]:
            assert (result.made.scores.path / each["image"]).is_file()
            for wrong in each["wrong"]:
                threshold = row["thresholds"][CLASSES.index(wrong["label"])]
                assert wrong["given"] == (wrong["label"] not in truth[each["name"]])
                assert wrong["given"] == (wrong["probability"] >= threshold)
    shown = {model["id"]: model["worst"] for model in read_json(result.report.with_suffix(".json"))["models"]}
    assert [each["row"] for each in shown[rows[0]["model"]]] == [each["row"] for each in rows[0]["worst"]]


def test_the_report_speaks_of_map(finished: tuple[Path, RunResult]) -> None:
    _, result = finished
    page = result.report.read_text()
    assert (
        "mAP against latency" in page
        and "Average precision by class" in page
        and "a random order of the images" in page
    )
    assert "Accuracy" not in page and "Test mAP" in page
    assert 'id="calibration"' in page and "Brier score" in page and "Share present by probability" in page
    assert "labels per training image" in page and "mAP in validation by epoch" in page


def test_eval_takes_a_table(finished: tuple[Path, RunResult]) -> None:
    folder, result = finished
    arguments = ["eval", str(result.bundle), str(folder / "labels.csv")]
    shown = CliRunner().invoke(group, arguments)
    assert shown.exit_code == 0 and shown.stdout.startswith("mAP ") and "240 images" in shown.stdout
    found = json.loads(CliRunner().invoke(group, [*arguments, "--json"]).stdout)
    measured = edgekd.evaluate(result.bundle, folder / "labels.csv")
    assert found["mean_average_precision"] == measured.mean_average_precision and found["samples"] == 240
    assert found["per_class"]["red"]["interval"] == list(measured.per_class["red"].interval)
    assert f"expected calibration error {measured.calibration.ece:.2%}, Brier score" in shown.stdout
    with pytest.raises(DataError, match="photos is not a table\\n  found: a folder"):
        edgekd.evaluate(result.bundle, folder / "photos")
    checkpoint = next(path for path in (folder / "run/stages").glob("distill-*"))
    with pytest.raises(UsageError, match="images with several labels, which are measured with a bundle's thresholds"):
        edgekd.evaluate(checkpoint, folder / "photos", allow_code=True)
    with pytest.raises(UsageError, match="images with several labels"):
        edgekd.evaluate(result.bundle / "model.fp32.onnx", folder / "photos", like=result.bundle)


def test_running_again_reuses_everything(finished: tuple[Path, RunResult]) -> None:
    folder, _ = finished
    loaded = from_mapping(recipe(folder / "labels.csv"), allow_code=True)
    assert {stage.state for stage in pipeline.plan(loaded, folder / "run")} == {"reused"}


def test_a_budget_is_one_of_map(finished: tuple[Path, RunResult]) -> None:
    folder, result = finished
    rows = {row["model"]: row["mAP"] for row in result.made.scores.rows}
    budget = {"accuracy_drop": 0.9, "variant": "int8-asym"}
    verdict = edgekd.run({**recipe(folder / "labels.csv"), "budget": budget}, folder / "run", allow_code=True).budget
    assert verdict is not None and verdict.met
    assert verdict.bounds[0].value == pytest.approx(rows["teacher-fp32"] - rows["quantized-int8-asym"])
    assert "loss of test mAP against Teacher" in (folder / "run/report.html").read_text()


def test_a_network_that_answers_with_probabilities_is_refused(finished: tuple[Path, RunResult], tmp_path: Path) -> None:
    folder, result = finished
    (folder / "after.py").write_text(
        f"{NETS}\n\ndef sigmoid(num_classes):\n    return nn.Sequential(*build(num_classes, 12), nn.Sigmoid())\n"
    )
    changed = recipe(folder / "labels.csv")
    teacher = next(path for path in (folder / "run/stages").glob("teacher-*")) / "weights.safetensors"
    changed["teacher"] = {"model": f"{folder}/after.py:sigmoid", "checkpoint": str(teacher)}
    with pytest.raises(ModelError, match="answers with probabilities(?s:.)*next: remove the sigmoid"):
        edgekd.train(changed, tmp_path, allow_code=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "distill.objective=[{method: kd}]",
            "kd has no meaning for data.task: multilabel. Losses that have one: attention, bin",
        ),
        ("prune.objective=[{method: dkd}]", "prune.objective"),
        ("distill.scheme=teacher-free", "teacher-free needs images of exactly one class"),
        ("data.balance=full", "data.balance needs one class per image"),
        ("teacher.train.class_weights=auto", "class_weights needs one class per image"),
        ("distill.teacher_outputs={store: on, top_k: 2}", "top_k stores shares of one class"),
        ("data.source=image-folder", "image-folder does not use task"),
        ("data={source: digits, task: multilabel}", "digits does not use task"),
    ],
)
def test_what_needs_one_class_per_image_is_refused(tmp_path: Path, override: str, message: str) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    with pytest.raises(RecipeError, match=message):
        from_mapping(recipe(tmp_path / "labels.csv"), [override], allow_code=True)


def test_losses_of_sets_are_refused_for_one_class_per_image() -> None:
    with pytest.raises(RecipeError, match="binary_kd has no meaning for data.task: single-label"):
        from_mapping(
            {
                "name": "x",
                "data": {"source": "digits"},
                "teacher": {"model": "cifar/resnet8", "train": {}},
                "student": {"model": "cifar/resnet8"},
                "distill": {"objective": [{"method": "binary_kd"}]},
            }
        )


def test_a_task_of_a_multi_task_student_has_one_class_per_image(tmp_path: Path) -> None:
    task = {"data": {"source": "csv-file", "root": str(tmp_path / "x.csv"), "task": "multilabel"}}
    teacher = {"model": "cifar/resnet8", "train": {}}
    with pytest.raises(
        RecipeError, match=r"tasks.tags.data.task: a head of multi-task needs images of exactly one class"
    ):
        from_mapping(
            {
                "name": "x",
                "data": {"source": "digits"},
                "teacher": teacher,
                "student": {"model": "cifar/resnet8"},
                "distill": {"scheme": {"name": "multi-task", "tasks": {"tags": {**task, "teacher": teacher}}}},
            }
        )


def test_weights_that_answer_the_same_for_every_image_are_warned_about(
    finished: tuple[Path, RunResult], tmp_path: Path
) -> None:
    folder, _ = finished
    teacher = next(path for path in (folder / "run/stages").glob("teacher-*")) / "weights.safetensors"
    dead = {name: torch.zeros_like(value) for name, value in load_file(teacher).items()}
    save_file(dead, tmp_path / "dead.safetensors")
    changed = recipe(folder / "labels.csv")
    changed["teacher"] = {
        "model": f"{folder}/nets.py:build",
        "arguments": {"width": 12},
        "checkpoint": str(tmp_path / "dead.safetensors"),
    }
    made = edgekd.train(changed, tmp_path / "run", allow_code=True)
    (warning,) = made.metrics["warnings"]
    assert warning.startswith("The weights as given, on ") and "the same output for every image" in warning


def test_an_onnx_teacher_gives_logits_not_probabilities(tmp_path: Path) -> None:
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 12, 12])
    outputs = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    means = helper.make_node("ReduceMean", ["x"], ["means"], axes=[2, 3], keepdims=0)
    opset = [helper.make_opsetid("", 13)]
    for name, last in (("logits", "Identity"), ("shares", "Sigmoid")):
        graph = helper.make_graph([means, helper.make_node(last, ["means"], ["y"])], "g", [images], [outputs])
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / f"{name}.onnx")

    def plan(name: str) -> None:
        values = recipe(write_images(tmp_path) if not (tmp_path / "photos").exists() else tmp_path / "labels.csv")
        seen = {"mean": [0.0] * 3, "std": [1.0] * 3}
        values["teacher"] = {"model": str(tmp_path / f"{name}.onnx"), "input": seen}
        values["student"] = {"model": "cifar/resnet8"}
        values.pop("prune", None)
        pipeline.plan(from_mapping(values), tmp_path / "run")

    plan("logits")
    with pytest.raises(ModelError, match="gives probabilities, and images of several labels need a logit"):
        plan("shares")
