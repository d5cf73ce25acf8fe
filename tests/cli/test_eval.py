from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from edgekd.cli.eval import command
from edgekd.errors import UsageError
from edgekd.runtime.accuracy import Confusion, FolderAccuracy, Majority, WorstImage
from edgekd.runtime.set_scores import SetScores
from edgekd.runtime.statistics import Bin, Calibration, ClassAccuracy


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
    for kind in (FolderAccuracy, SetScores, Calibration, Bin, ClassAccuracy, Confusion, Majority, WorstImage):
        missing = [each.name for each in fields(kind) if f"`{each.name}`" not in page]
        assert missing == [], kind.__name__


def test_a_table_and_its_columns(linear_bundle, tmp_path):
    Image.new("RGB", (8, 8), (0, 0, 200)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,kind,split\na.png,blue,test\n")
    arguments = [str(linear_bundle), str(tmp_path / "labels.csv"), "--label-column", "kind"]
    shown = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert shown.stdout.startswith("100.00% of 1 images of the split test (fp32, onnxruntime ")
    with pytest.raises(UsageError, match="for a table"):
        CliRunner().invoke(command, [str(linear_bundle), str(tmp_path), *arguments[2:]], catch_exceptions=False)
