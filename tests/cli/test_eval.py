from __future__ import annotations

import json

from click.testing import CliRunner
from PIL import Image

from edgekd.cli.eval import command


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
    assert found["per_class"] == {"blue": 0.5} and found["majority"] == ["blue", 1.0] and found["problems"] == []
    assert found["confused"] == [{"label": "blue", "answer": "red", "count": 1}]
    (tmp_path / "own" / "red").mkdir()
    for name in "cdef":
        Image.new("RGB", (8, 8), (0, 200, 0)).save(tmp_path / "own" / "red" / f"{name}.png")
    (tmp_path / "own" / "blue" / "a.png").unlink()
    Image.new("RGB", (8, 8), (0, 200, 0)).save(tmp_path / "own" / "blue" / "b.png")
    shown = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert "not usable: the same output for every image" in shown.stderr
