"""A network from outside: each way in which it does not build, answer or export is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from chains import check_networks
from safetensors.torch import save_file

from edgekd import plugins
from edgekd.errors import ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.code import code_of, permitted
from edgekd.recipe.code import read
from edgekd.recipe.load import Recipe, from_mapping
from edgekd.store.artifacts import read_json
from edgekd.training import train as training

FAULTS = {
    "no network": ("def build(num_classes): return num_classes", r"does not return a network\n  found: int"),
    "no function": ("def other(num_classes): ...", r"has no function 'build'\n  found: nothing\n  allowed: other"),
    "no num_classes": (
        "def build(): ...",
        r"does not take num_classes .*\n  found: got an unexpected keyword",
    ),
    "an argument it did not get": ("def build(num_classes, depth): ...", r"missing a required argument: 'depth'"),
    "raises": (
        "def build(num_classes):\n    raise KeyError('gone')",
        r"KeyError: 'gone' \(.*nets.py, line 2: raise",
    ),
    "exits": ("def build(num_classes):\n    raise SystemExit('over')", r"SystemExit: over"),
    "raises while it is loaded": ("x = 1\n1 / 0", r"cannot be loaded\n  found: ZeroDivisionError: .*line 2: 1 / 0"),
    "is no Python": ("x = 1\ndef build(:", r"cannot be loaded\n  found: SyntaxError: .*line 2"),
    "imports what is not installed": ("import edgekd_is_not_this", r"(?s)ModuleNotFoundError.*one file must hold"),
    "imports its neighbour": ("from . import other", r"(?s)ImportError.*one file must hold"),
    "starts a run": (
        "import edgekd\nedgekd.train({'name': 'a', 'data': {'source': 'digits'}, 'student': {'model': 'cifar/resnet8'},"
        " 'teacher': {'model': 'cifar/resnet8', 'train': {}}}, 'never')",
        "calls edgekd while its network is loaded",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_build_is_named_with_file_and_function(fault, tmp_path):
    text, message = FAULTS[fault]
    file = tmp_path / "nets.py"
    file.write_text(text + "\n")
    with permitted([read(file)]):
        code = code_of(f"{file}:build")
        with pytest.raises(ModelError, match=message) as raised:
            build(Architecture(model=str(code), num_classes=2, code=code))
    assert str(file) in str(raised.value)
    # A file that cannot be loaded has no function yet.
    assert "build" in str(raised.value) or "cannot be loaded" in str(raised.value)


def test_a_neighbour_that_happens_to_be_importable_is_refused(nets, monkeypatch):
    nets.with_name("neighbour_of_nets.py").write_text("")
    nets.write_text("import neighbour_of_nets\n" + nets.read_text())
    monkeypatch.syspath_prepend(str(nets.parent))
    with (
        permitted([read(nets)]),
        pytest.raises(ModelError, match=r"imports the file .*neighbour_of_nets\.py beside"),
    ):
        code = code_of(f"{nets}:build")
        build(Architecture(model=str(code), num_classes=2, code=code))


NETWORK = """import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, num_classes)

    def forward(self, x):
        y = self.head(self.conv(x).mean((2, 3)))
        {body}

def build(num_classes):
    return Net({classes})
"""
ANSWERS = {
    "another width": ("return y", "7", r"returns another shape .*\n  found: \(2, 7\)\n  allowed: \(2, 10\)"),
    "a tuple": ("return y, x", "num_classes", r"does not return one tensor .*\n  found: a tuple"),
    "a dict": ("return {'logits': y}", "num_classes", r"does not return one tensor .*\n  found: a dict"),
    "a tuple in training": (
        "return (y, y) if self.training else y",
        "num_classes",
        "in training mode\n  found: a",
    ),
    "an error": ("raise ValueError('too small')", "num_classes", r"ValueError: too small \(.*line 12"),
    "one batch size": (
        "return self.head(self.conv(x).mean((2, 3)).reshape(2, 4))",
        "num_classes",
        r"raised an error on a batch of one image of 16x16\n  found: RuntimeError: shape",
    ),
    "the batch in an image's logits": (
        "return y - y.mean(0, keepdim=True)",
        "num_classes",
        r"other logits for an image alone than in a batch of 2\n  found: a difference of",
    ),
    "chance": ("return y + torch.rand(1)", "num_classes", r"other logits for the same images when it is called again"),
    "probabilities": ("return y.softmax(1)", "num_classes", r"returns probabilities in training mode\n  found: rows"),
    "a view": (
        "return self.head(self.conv(x).view(len(x), -1)[:, :4])",
        "num_classes",
        r"not in channels_last\n  found: RuntimeError: view size is not (?s:.)*: write reshape",
    ),
    "no number": ("return y / 0 * 0", "num_classes", r"NaN or infinite logits for noise in training mode"),
    "no graph": (
        "return y if float(y.detach().sum()) < 1e9 else 2 * y",
        "num_classes",
        r"cannot be exported to ONNX",
    ),
}
SOURCE = """
from edgekd.models.sources import ModelSource

def from_source(name, *, num_classes, pretrained=False):
    return build(num_classes)

MODELS = ModelSource(names=lambda: ("net",), build=from_source, published_classes=lambda name: 0)
"""
MAPPING = {
    "name": "own",
    "data": {"source": "digits", "image_size": 16},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
    "quantize": {},
}


def _student(file: Path) -> Recipe:
    return from_mapping({**MAPPING, "student": {"model": f"{file}:build"}}, allow_code=True)


def test_what_answers_and_exports_passes_and_is_not_changed(nets, small_digits):
    recipe = _student(nets)
    with permitted(recipe.code):
        check_networks(recipe.settings, small_digits)
        network, _ = training.initial(recipe.settings.student, small_digits)
    assert network.training and int(network.state_dict()["1.num_batches_tracked"]) == 0


@pytest.mark.parametrize("fault", ANSWERS)
def test_what_does_not_answer_or_export_is_refused_before_training(fault, small_digits, tmp_path):
    body, classes, message = ANSWERS[fault]
    file = tmp_path / "nets.py"
    file.write_text(NETWORK.replace("{body}", body).replace("{classes}", classes))
    recipe = _student(file)
    with permitted(recipe.code), pytest.raises(ModelError, match=message) as raised:
        check_networks(recipe.settings, small_digits)
    assert str(file) in str(raised.value) and "build" in str(raised.value)


@pytest.mark.parametrize("fault", ANSWERS)
def test_a_network_of_a_source_from_outside_is_held_to_the_same(fault, small_digits, tmp_path, monkeypatch):
    body, classes, message = ANSWERS[fault]
    file = tmp_path / "models" / "outside.py"
    file.parent.mkdir()
    file.write_text(NETWORK.replace("{body}", body).replace("{classes}", classes) + SOURCE)
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path))
    mapping = {**MAPPING, "student": {"model": "outside/net"}}
    with pytest.raises(ModelError, match=message.partition(r" \(")[0]) as raised:
        check_networks(from_mapping(mapping).settings, small_digits)
    assert "the network of outside/net" in str(raised.value)


PARAMETERS = {
    "lazy": (
        "nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))",
        r"not known before(?s:.)*found: 1.weight, 1.bias",
    ),
    "none": ("nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(num_classes))", "has no parameters"),
    "frozen": ("nn.Sequential(nn.Flatten(), nn.Linear(768, num_classes)).requires_grad_(False)", "all its .* frozen"),
}


@pytest.mark.parametrize("fault", PARAMETERS)
def test_what_cannot_be_trained_is_refused_before_training(fault, small_digits, tmp_path):
    network, message = PARAMETERS[fault]
    file = tmp_path / "nets.py"
    file.write_text(f"from torch import nn\n\ndef build(num_classes):\n    return {network}\n")
    recipe = _student(file)
    with permitted(recipe.code), pytest.raises(ModelError, match=message):
        check_networks(recipe.settings, small_digits)


def test_a_frozen_teacher_that_is_not_trained_is_fine(small_digits, tmp_path):
    network = "nn.Sequential(nn.Flatten(), nn.Linear(768, num_classes))"
    file = tmp_path / "nets.py"
    file.write_text(f"from torch import nn\n\ndef build(num_classes):\n    return {network}.requires_grad_(False)\n")
    save_file({"1.weight": torch.zeros(10, 768), "1.bias": torch.zeros(10)}, tmp_path / "teacher.safetensors")
    teacher = {"model": f"{file}:build", "checkpoint": str(tmp_path / "teacher.safetensors")}
    recipe = from_mapping({**MAPPING, "teacher": teacher, "student": {"model": "cifar/resnet8"}}, allow_code=True)
    with permitted(recipe.code):
        check_networks(recipe.settings, small_digits)


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
