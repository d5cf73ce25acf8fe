from __future__ import annotations

import pytest
import torch
from pruned import prune
from small_networks import save_small

from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.edits import quantize
from edgekd.models.edits.reparameterize import edit_of
from edgekd.models.reparameterization import fold
from edgekd.quantization.placement import freeze, insert, observe
from edgekd.runtime.preprocess import InputShape

BRANCHED = Architecture(model="timm/mobileone_s0", num_classes=3)
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_folded_then_pruned_then_quantized_it_is_rebuilt_from_its_folder(tmp_path):
    folded = fold(build(BRANCHED))
    architecture = BRANCHED.edited(edit_of(folded))
    saved = save_small(folded.model, architecture, tmp_path / "folded")
    assert "branches" not in saved.metrics and save_small(build(BRANCHED), BRANCHED, tmp_path / "a").metrics["branches"]
    assert torch.equal(checkpoints.load(Checkpoint.load(tmp_path / "folded"))(IMAGES), folded.model(IMAGES))

    pruned = prune(folded.model, 0.6, InputShape(3, 32, 32))
    assert pruned.kept <= 0.6
    shapes = {name: list(shape) for name, shape in pruned.shapes.items()}
    quantized = insert(pruned.model).model
    observe(quantized)
    quantized(IMAGES)
    freeze(quantized)
    edited = architecture.edited({"edit": "prune", "shapes": shapes}).edited(quantize.edit_of())
    save_small(quantized, edited, tmp_path / "quantized")
    again = checkpoints.load(Checkpoint.load(tmp_path / "quantized"))
    assert torch.equal(again(IMAGES), quantized.eval()(IMAGES))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"modules": ["stem.99"]}, "do not fit this network at stem.99"),
        ({"convolutions": [1, 2]}, "counts of folded layers in this checkpoint are not valid"),
        ({"norms": ["many", 1]}, "cannot be replayed"),
    ],
)
def test_a_damaged_edit_is_refused(edit, message):
    whole = {"edit": "reparameterize", "modules": ["stem"], "convolutions": [2, 1], "norms": [3, 0]}
    build(BRANCHED.edited(whole))
    with pytest.raises(ModelError, match=message):
        build(BRANCHED.edited({**whole, **edit}))
