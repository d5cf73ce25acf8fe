"""The whole chain of networks of the user's own, at the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgekd.store.artifacts import read_json


@pytest.mark.slow
def test_the_whole_chain_at_the_command_line(nets, tmp_path):
    """Teacher, assistant and student of a user's own, to a bundle that needs none of it."""
    steps = {"epochs": 1, "batch_size": 32}
    recipe = {
        "name": "tiny",
        "data": {"source": "digits", "image_size": 16, "limit": 320, "validation": 0.1, "test": 0.1},
        "teacher": {"model": "nets.py:build", "arguments": {"width": 16}, "train": steps},
        "student": {"model": "nets.py:build"},
        "distill": {
            "scheme": {"name": "assistant", "model": "nets.py:build", "arguments": {"width": 12}},
            "objective": [{"method": "kd", "temperature": 4}],
            "baseline": False,
            **steps,
        },
        "prune": {"target": {"parameters": 0.7}, "multiple": 2, **steps},
        "quantize": {"calibration_images": 64, "baseline": False, **steps},
        "export": {"variants": ["fp32", "int8"]},
        "bench": {"batch_sizes": [1], "seconds": 0.05, "warmup_seconds": 0.01},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))

    def edgekd(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "edgekd", *words]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=600)

    refused = edgekd("run", "recipe.yaml")
    assert (refused.returncode, refused.stdout) == (2, "") and "--allow-code" in refused.stderr
    assert not (tmp_path / "runs").exists()
    shown = edgekd("run", "recipe.yaml", "--allow-code")
    assert shown.returncode == 0, shown.stderr
    # Changed code changes the keys of what is made of it, and of nothing else.
    nets.write_text(nets.read_text() + "# changed\n")
    planned = edgekd("run", "recipe.yaml", "--allow-code", "--plan", "--json")
    plan = {stage["stage"]: stage["state"] for stage in json.loads(planned.stdout)}
    assert (plan["data"], plan["teacher"]) == ("reused", "run")
    nets.unlink()
    bundle = tmp_path / "runs" / "tiny" / "bundle"
    assert not list(bundle.rglob("*.py"))
    assert read_json(bundle / "bundle.json")["provenance"]["architecture"]["model"] == "nets.py:build"
    loaded = "import edgekd.runtime as r, sys; sys.modules['torch'] = None; r.load('runs/tiny/bundle').verify()"
    assert subprocess.run([sys.executable, "-c", loaded], cwd=tmp_path).returncode == 0
