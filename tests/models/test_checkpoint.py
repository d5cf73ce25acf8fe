from __future__ import annotations

import pytest
import torch
from small_networks import SMALL, save_small

from edgekd.errors import ArtifactError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint, TrainingNotes
from edgekd.runtime.preprocess import Preprocessing
from edgekd.store.artifacts import read_json


def test_a_checkpoint_rebuilds_the_same_network_from_its_folder(tmp_path):
    model = build(SMALL).eval()
    save_small(model, SMALL, tmp_path / "c")
    again = checkpoints.load(Checkpoint.load(tmp_path / "c"))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), again(images))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("architecture", {"model": "cifar/resnet8"}, r"details\.architecture\.num_classes: Field required"),
        ("preprocessing", {"image_size": [8, 8], "resize": [8]}, r"details\.preprocessing\.resize\.1"),
        ("preprocessing", {"image_size": "8", "resize": [8, 8]}, r"details\.preprocessing\.image_size"),
        ("classes", "cat", r"details\.classes"),
        ("training", {"label_smoothing": "some"}, r"details\.training\.label_smoothing"),
    ],
)
def test_a_manifest_that_describes_no_network_is_refused(tmp_path, field, value, message):
    saved = save_small(build(SMALL), SMALL, tmp_path / "c")
    details = {**saved.manifest.details, field: value}
    with pytest.raises(ArtifactError, match=rf"of the kind checkpoint(?s:.)*{message}"):
        Checkpoint(saved.path, saved.manifest.model_copy(update={"details": details}))


def test_notes_on_training_keep_what_a_scheme_adds_and_no_more(tmp_path):
    notes = TrainingNotes(epochs=3, objective=[{"method": "kd"}])
    checkpoints.save(
        build(SMALL),
        SMALL,
        preprocessing=Preprocessing((32, 32), (32, 32)),
        classes=("a", "b", "c"),
        out=tmp_path,
        training=notes,
    )
    on_disk = read_json(tmp_path / "manifest.json")["details"]["training"]
    assert on_disk == {"epochs": 3, "objective": [{"method": "kd"}]}
    assert Checkpoint.load(tmp_path).details.training == notes
