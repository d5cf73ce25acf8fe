from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from plugin_files import edgekd_command
from samples import seal_bundle

from edgekd.cli.eval import command, lines_of_sets
from edgekd.errors import UsageError
from edgekd.runtime.accuracy import Confusion, FolderAccuracy, Majority, WorstImage
from edgekd.runtime.label_calibration import LabelBin, LabelCalibration
from edgekd.runtime.multilabel import ClassPrecision, WrongLabel
from edgekd.runtime.set_scores import SetScores, WrongImage
from edgekd.runtime.statistics import Bin, Calibration, ClassAccuracy


def test_a_default_that_is_replaced_here_is_told_in_one_line(many_bundle, tmp_path):
    bundle = many_bundle("fp32", "int8-asym", engines={"onnxruntime": ["int8-asym", "fp32"]})
    (bundle / "model.int8-asym.onnx").write_bytes(b"no graph")
    seal_bundle(bundle, json.loads((bundle / "bundle.json").read_text()))
    (tmp_path / "own" / "blue").mkdir(parents=True)
    Image.new("RGB", (8, 8), (0, 0, 200)).save(tmp_path / "own" / "blue" / "a.png")
    shown = edgekd_command("eval", str(bundle), str(tmp_path / "own"))
    assert shown.returncode == 0 and shown.stdout.startswith("100.00% of 1 image (fp32, onnxruntime ")
    (line,) = [line for line in shown.stderr.splitlines() if "int8-asym" in line]
    assert line.startswith(f"edgekd: {bundle}: int8-asym is not used on this machine: ")
    assert line.endswith("fp32 is used instead.")


def test_an_accuracy_of_ones_own_images(linear_bundle, tmp_path):
    (tmp_path / "own" / "blue").mkdir(parents=True)
    for name, colour in (("a", (0, 0, 200)), ("b", (200, 0, 0))):
        Image.new("RGB", (8, 8), colour).save(tmp_path / "own" / "blue" / f"{name}.png")
    (tmp_path / "own" / "blue" / "broken.png").write_bytes(b"no image")
    arguments = [str(linear_bundle), str(tmp_path / "own"), "--variant", "fp32", "--backend", "onnxruntime"]
    shown = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert shown.stdout.startswith("50.00% of 2 images (fp32, onnxruntime ")
    for part in ("95 % interval 9.5% to 90.5%", "always answering blue, the most frequent class: 100.00%", "1 x blue"):
        assert part in shown.stdout
    assert "unreadable: " in shown.stderr and "broken.png" in shown.stderr
    found = json.loads(CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert (found["accuracy"], found["samples"], len(found["unreadable"])) == (0.5, 2, 1)
    assert found["per_class"] == {"blue": {"accuracy": 0.5, "interval": found["interval"], "samples": 2}}
    assert found["majority"] == {"label": "blue", "share": 1.0} and found["problems"] == []
    assert found["confused"] == [{"label": "blue", "answer": "red", "count": 1}]
    # Both have a logit of 200/255 beside two of 0.
    probability = math.exp(200 / 255) / (math.exp(200 / 255) + 2)
    (worst,) = found["worst"]
    assert worst == {"file": "blue/b.png", "label": "blue", "answer": "red", "probability": pytest.approx(probability)}
    assert found["calibration"]["ece"] == pytest.approx(abs(probability - 0.5), rel=1e-5)
    assert [each["count"] for each in found["calibration"]["bins"]] == [0] * 7 + [2] + [0] * 7
    for part in (
        "blue                       50.00%  (9.5% to 90.5%, 2 images)",
        f"mean confidence {probability:.2%}, expected calibration error ",
        f"  {probability:.2%}  blue taken for red: blue/b.png",
    ):
        assert part in shown.stdout
    (tmp_path / "own" / "red").mkdir()
    for name in "cdef":
        Image.new("RGB", (8, 8), (0, 200, 0)).save(tmp_path / "own" / "red" / f"{name}.png")
    (tmp_path / "own" / "blue" / "a.png").unlink()
    Image.new("RGB", (8, 8), (0, 200, 0)).save(tmp_path / "own" / "blue" / "b.png")
    shown = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert "not usable: the same output for every image" in shown.stderr


def test_every_key_of_the_json_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "eval.md").read_text()
    single = (FolderAccuracy, Calibration, Bin, ClassAccuracy, Confusion, Majority, WorstImage)
    sets = (SetScores, ClassPrecision, LabelCalibration, LabelBin, WrongImage, WrongLabel)
    for kind in (*single, *sets):
        missing = [each.name for each in fields(kind) if f"`{each.name}`" not in page]
        assert missing == [], kind.__name__


def test_a_table_and_its_columns(linear_bundle, tmp_path):
    Image.new("RGB", (8, 8), (0, 0, 200)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,kind,split\na.png,blue,test\n")
    arguments = [str(linear_bundle), str(tmp_path / "labels.csv"), "--label-column", "kind"]
    shown = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert shown.stdout.startswith("100.00% of 1 image of the split test (fp32, onnxruntime ")
    with pytest.raises(UsageError, match="for a table"):
        CliRunner().invoke(command, [str(linear_bundle), str(tmp_path), *arguments[2:]], catch_exceptions=False)


def test_the_lines_about_several_labels():
    bins = tuple(LabelBin(0, None, None) for _ in range(15))
    result = SetScores(
        mean_average_precision=0.75,
        interval=(0.6, 0.9),
        samples=40,
        chance=0.2,
        micro_f1=0.8,
        macro_f1=0.7,
        per_class={
            "red": ClassPrecision(0.9, (0.8, 0.95), 12, 0.3, 0.04),
            "blue": ClassPrecision(0.6, (0.3, 0.8), 5, 0.1, 0.02),
        },
        unmeasured=("green",),
        calibration=LabelCalibration(0.031, 0.0712, 0.2, 0.25, 0.21, 0.04, (0.01, 0.07), 120, bins),
        worst=(WrongImage("a/b.png", (WrongLabel("red", True, 0.97), WrongLabel("blue", False, 0.2))),),
        problems=(),
        variant="fp32",
        engine="onnxruntime 1",
        unreadable=(),
        split="",
    )
    assert list(lines_of_sets(result))[3:] == [
        "mean probability of a label 25.00%, share of labels present 21.00%",
        "expected calibration error 3.10%, Brier score 0.0712",
        "negative log-likelihood 0.200 nats per label",
        "  blue                       60.00%  (30.0% to 80.0%, 5 images)",
        "  red                        90.00%  (80.0% to 95.0%, 12 images)",
        "without an image, and left out: green",
        "images with the most confident wrong labels:",
        "  red given at 97.00%, blue missed at 20.00%: a/b.png",
    ]
