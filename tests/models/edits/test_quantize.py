"""A quantized network is rebuilt from its checkpoint's folder: the same structure, the same bits."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from pruned import prune
from small_networks import SMALL, save_small
from torch import nn
from torch.nn.utils import parametrize

from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.edits.quantize import edit_of
from edgekd.models.weights import load_state, read_state, save_state
from edgekd.quantization.placement import freeze, insert, observe
from edgekd.recipe.settings import AugmentSettings, TrainSettings
from edgekd.runtime.preprocess import InputShape
from edgekd.training.fit import accuracy, fit
from edgekd.training.objective import Supervised
from edgekd.training.train import evaluation_loader, training_loader

EDIT = edit_of()
_AGAIN = """
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.checkpoint import load
folder, images, out = map(Path, sys.argv[1:])
with torch.no_grad():
    save_file({"logits": load(Checkpoint.load(folder))(load_file(images)["images"])}, out)
"""


def _calibrated(model: nn.Module, keep: tuple[str, ...] = (), *, learned: bool = False) -> nn.Module:
    network = insert(model, keep, learned=learned).model
    observe(network)
    with torch.no_grad():
        network(torch.randn(8, 3, 32, 32))
    freeze(network)
    return network.eval()


@pytest.mark.parametrize("learned", [False, True])
def test_another_process_rebuilds_the_same_bits(tmp_path, learned):
    from safetensors.torch import load_file, save_file

    network = _calibrated(build(SMALL), learned=learned)
    if learned:
        with torch.no_grad():
            for name, value in network.named_parameters():
                if name.endswith("step"):
                    value.mul_(0.9)
    saved = save_small(network, SMALL.edited({**EDIT, **({"learned": True} if learned else {})}), tmp_path / "c")
    plain = _calibrated(build(SMALL))
    assert saved.metrics["macs"] > 0
    assert saved.metrics["parameters"] == sum(value.numel() for value in plain.parameters())
    images = torch.randn(4, 3, 32, 32)
    save_file({"images": images}, tmp_path / "images.safetensors")
    command = [sys.executable, "-c", _AGAIN, saved.path, tmp_path / "images.safetensors", tmp_path / "out.safetensors"]
    subprocess.run([str(part) for part in command], check=True, timeout=120)
    with torch.no_grad():
        assert torch.equal(load_file(tmp_path / "out.safetensors")["logits"], network(images))


def test_pruned_and_then_quantized_is_rebuilt(tmp_path):
    made = prune(build(SMALL).eval(), 0.5, InputShape(3, 32, 32), multiple=4)
    pruned = SMALL.edited({"edit": "prune", "shapes": {name: list(size) for name, size in made.shapes.items()}})
    network = _calibrated(made.model)
    saved = save_small(network, pruned.edited(EDIT), tmp_path / "c")
    images = torch.randn(2, 3, 32, 32)
    again = checkpoints.load(Checkpoint.load(saved.path))
    with torch.no_grad():
        assert torch.equal(again(images), network(images))


def test_what_stays_in_float_is_rebuilt_in_float(tmp_path):
    gate = "features.1.block.1"
    kept = ("features.0.0", *(f"{gate}.{name}" for name in ("avgpool", "fc1", "fc2", "scale_activation", "mul")))
    network = _calibrated(build(SMALL), kept)
    saved = save_small(network, SMALL.edited(edit_of(kept)), tmp_path / "c")
    again = checkpoints.load(Checkpoint.load(saved.path))
    rounded = {path for path, module in again.named_modules() if parametrize.is_parametrized(module)}
    assert "classifier.0" in rounded and rounded.isdisjoint(kept)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images), network(images))
    with pytest.raises(ModelError, match=r"do not fit this network"):
        load_state(build(SMALL.edited(EDIT)), read_state(saved.weights), origin="c")
    with pytest.raises(ModelError, match=r"is not in the network\n  found: features.0.9"):
        build(SMALL.edited(edit_of(["features.0.9"])))


def test_weights_without_quantizers_are_refused(tmp_path):
    save_state(build(SMALL), tmp_path / "weights.safetensors")
    quantized = build(SMALL.edited(EDIT))
    with pytest.raises(ModelError, match=r"do not fit this network(?s:.)*tensors missing"):
        load_state(quantized, read_state(tmp_path / "weights.safetensors"), origin="c")
    state = {name: value for name, value in quantized.state_dict().items() if not name.startswith("quantizers.")}
    with pytest.raises(ModelError, match=r"tensors missing, e\.g\. quantizers\."):
        load_state(quantized, state, origin="c")


def test_a_checkpoint_that_never_saw_an_image_is_not_written(tmp_path):
    with pytest.raises(ModelError, match="has seen no values"):
        save_small(insert(build(SMALL)).model, SMALL.edited(EDIT), tmp_path / "c")


def test_other_rules_of_placement_are_refused():
    with pytest.raises(ModelError, match=r"placed by another version(?s:.)*version 1(?s:.)*version 2"):
        build(SMALL.edited({"edit": "quantize", "version": 1}))


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(512, 10)
    )


@pytest.mark.parametrize("ema", [None, 0.9])
def test_it_trains_with_its_quantizers_observing(small_digits, tmp_path, ema):
    network = insert(_network()).model
    settings = TrainSettings(epochs=2, batch_size=32, learning_rate=0.05, precision="fp32", ema=ema)
    history = fit(
        network,
        Supervised(),
        training_loader(small_digits, settings, AugmentSettings(padding=1, flip=False)),
        settings,
        resume=tmp_path,
        validation=evaluation_loader(small_digits, "validation"),
    )
    assert history[1].loss < history[0].loss
    freeze(network)
    assert accuracy(network, evaluation_loader(small_digits, "validation")) == history[-1].validation_accuracy
