"""Teacher outputs computed once: for the same pixels, also after an interruption, and only if it is faster."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distillation import output_files, outputs
from edgekd.distillation.objective import Teacher
from edgekd.distillation.outputs import TeacherOutputs
from edgekd.errors import RecipeError
from edgekd.recipe.load import from_mapping
from edgekd.recipe.settings import AugmentSettings, OutputSettings, StepSettings, TrainSettings
from edgekd.recipe.settings import ModelSettings as Model
from edgekd.training.train import TrainingSetup, train, training_loader

CPU = torch.device("cpu")
VARIED = AugmentSettings(padding=2, flip=False)
STEPS = StepSettings(epochs=6, batch_size=48, seed=3)


@pytest.fixture(scope="module")
def teacher(small_digits, tmp_path_factory):
    settings = TrainSettings(epochs=1, batch_size=64, precision="fp32")
    return train(
        Model(model="cifar/resnet8"), small_digits, TrainingSetup(settings, VARIED), tmp_path_factory.mktemp("t")
    )


def _store(teacher, data, folder, **settings) -> TeacherOutputs:
    (folder / "artifact").mkdir(parents=True)
    return outputs.store(teacher, data, OutputSettings(**settings), TrainingSetup(STEPS, VARIED), folder / "artifact")


@pytest.mark.parametrize("top_k", [None, 10])
def test_reading_gives_the_live_teachers_logits_for_each_view(teacher, small_digits, tmp_path, top_k):
    stored = outputs.Stored(_store(teacher, small_digits, tmp_path, views=2, top_k=top_k), CPU)
    live = Teacher.of(teacher, CPU, "auto")
    loader = training_loader(small_digits, STEPS, VARIED, views=2)
    for epoch in (0, 1, 2, 5):
        for batch in loader.epoch(epoch):
            assert batch.view == epoch % 2
            read, expected = stored(batch).logits, live(batch).logits
            if top_k is not None:
                expected = expected.log_softmax(1)
            # Half precision, and in bf16 another batch may round otherwise.
            torch.testing.assert_close(read, expected, atol=0.05, rtol=0.02)


def test_views_differ_and_come_back(small_digits):
    loader = training_loader(small_digits, STEPS, VARIED, views=2)
    first = {
        epoch: {int(i): x for b in loader.epoch(epoch) for i, x in zip(b.indices, b.images, strict=True)}
        for epoch in range(3)
    }
    both = first[0].keys() & first[1].keys() & first[2].keys()
    assert all(torch.equal(first[0][i], first[2][i]) for i in both)
    assert any(not torch.equal(first[0][i], first[1][i]) for i in both)


def test_an_interrupted_storing_resumes_and_ends_in_the_same_files(teacher, small_digits, tmp_path, monkeypatch):
    whole = _store(teacher, small_digits, tmp_path / "whole", views=2)
    monkeypatch.setattr(output_files, "_SAVE_EVERY", 2)
    before = []

    def stop(done: int, total: int, note: str) -> None:
        before.append(done)
        if done > 300:
            raise KeyboardInterrupt

    (tmp_path / "killed" / "artifact").mkdir(parents=True)
    out, wanted = tmp_path / "killed" / "artifact", OutputSettings(views=2)
    with pytest.raises(KeyboardInterrupt):
        outputs.store(teacher, small_digits, wanted, TrainingSetup(STEPS, VARIED, stop), out)
    seen = []
    setup = TrainingSetup(STEPS, VARIED, lambda done, *_: seen.append(done))
    again = outputs.store(teacher, small_digits, wanted, setup, out)
    assert min(seen) > min(before) and again.details == whole.details
    for view in range(2):
        a, b = (np.load(artifact.path / f"view-{view}.npy") for artifact in (whole, again))
        assert a.dtype == np.float16
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), atol=0.05)


def test_auto_measures_once_and_does_not_store_outputs_that_are_read_once(teacher, small_digits, tmp_path):
    few = outputs.decide(tmp_path, teacher, small_digits, OutputSettings(views=6), TrainingSetup(STEPS, VARIED))
    assert not few.stored and "nothing is read twice" in few.why
    long = StepSettings(epochs=1000, batch_size=48)
    many = outputs.decide(tmp_path / "b", teacher, small_digits, OutputSettings(views=1), TrainingSetup(long, VARIED))
    assert many.live_ms > 0 and many.read_ms > 0 and many.stored == (many.read_ms < 0.74 * many.live_ms)
    assert many.size_bytes == 256 * 10 * 2
    kept = outputs.decide(tmp_path / "b", teacher, small_digits, OutputSettings(views=1), TrainingSetup(long, VARIED))
    assert kept == many


RECIPE = {
    "name": "stored",
    "data": {"source": "digits"},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
    "student": {"model": "cifar/resnet8"},
}


@pytest.mark.parametrize(
    ("distill", "message"),
    [
        ({"teacher_outputs": "on", "objective": [{"method": "attention"}]}, "attention compares the teacher's layers"),
        ({"teacher_outputs": {"store": "on", "top_k": 2}, "objective": [{"method": "mse"}]}, "uses every logit"),
        ({"teacher_outputs": "on", "scheme": {"name": "offline", "cross_view": True}}, "another view than the stored"),
        ({"teacher_outputs": "always"}, "off"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_runs(distill, message):
    with pytest.raises(RecipeError, match=message):
        from_mapping({**RECIPE, "distill": distill})
