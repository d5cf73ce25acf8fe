"""One training loop: it learns, it goes on in the same bits after a kill, and it stops where it must."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgekd.data.dataset import open_split
from edgekd.data.loader import Loader
from edgekd.data.prepare import prepare
from edgekd.errors import NonFiniteLossError, OutOfMemoryError, TrainingError
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import AugmentSettings, DataSettings, TrainSettings
from edgekd.store.artifacts import file_digest, read_json
from edgekd.training.fit import Callbacks, accuracy, fit
from edgekd.training.objective import Supervised
from edgekd.training.throughput import tuning_of
from edgekd.training.train import evaluation_loader, training_loader


def _network(classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(512, classes)
    )


def _fit(data, folder, model=None, objective=None, stop=None, **settings):
    settings = TrainSettings(**{"epochs": 4, "batch_size": 32, "learning_rate": 0.05, "precision": "fp32", **settings})
    model = model or _network()

    def progress(done: int, total: int, note: str) -> None:
        if done == stop:
            raise KeyboardInterrupt

    history = fit(
        model,
        objective or Supervised(),
        training_loader(data, settings, AugmentSettings(padding=1, flip=False)),
        settings,
        resume=folder,
        validation=evaluation_loader(data, "validation"),
        callbacks=Callbacks(progress),
    )
    return model, history


def _same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_it_learns_and_states_how(small_digits, tmp_path):
    model, history = _fit(small_digits, tmp_path, epochs=8)
    assert [record.epoch for record in history] == list(range(1, 9))
    assert history[-1].loss < history[0].loss / 2
    score = accuracy(model, evaluation_loader(small_digits, "validation"))
    assert score == history[-1].validation_accuracy and score > 0.5
    assert history[-1].learning_rate < history[2].learning_rate


@pytest.mark.parametrize("extra", [{}, {"optimizer": "adamw", "learning_rate": 0.002, "ema": 0.9}])
def test_an_interrupted_training_ends_in_the_same_bits(small_digits, tmp_path, extra):
    whole, history = _fit(small_digits, tmp_path / "whole", **extra)
    with pytest.raises(KeyboardInterrupt):
        _fit(small_digits, tmp_path / "cut", stop=21, **extra)
    resumed, again = _fit(small_digits, tmp_path / "cut", **extra)
    assert _same(whole, resumed)
    assert [r.loss for r in history] == [r.loss for r in again]


def test_a_changed_state_is_refused(small_digits, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _fit(small_digits, tmp_path, stop=10)
    state = next(tmp_path.glob("epoch-*.safetensors"))
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    with pytest.raises(TrainingError, match=r"is damaged(?s:.)*digest differs(?s:.)*delete"):
        _fit(small_digits, tmp_path)


def test_a_loss_that_is_not_a_number_stops_with_step_and_last_good_state(small_digits, tmp_path):
    class Poisoned(Supervised):
        steps = 0

        def forward(self, model, batch):
            self.steps += 1
            poison = float("nan") if self.steps == 10 else 1.0
            return {name: loss * poison for name, loss in super().forward(model, batch).items()}

    with pytest.raises(NonFiniteLossError, match=r"step 10 \(epoch 2\)(?s:.)*state after epoch 1") as caught:
        _fit(small_digits, tmp_path, objective=Poisoned())
    assert "learning_rate" in str(caught.value)
    assert len(read_json(tmp_path / "head.json")["history"]) == 1


def test_what_an_objective_trains_is_trained_clipped_and_saved(small_digits, tmp_path):
    class Scaled(Supervised):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, model, batch):
            return {"ce": nn.functional.cross_entropy(self.scale * model(batch.images), batch.targets)}

    whole, cut = Scaled(), Scaled()
    _fit(small_digits, tmp_path / "whole", objective=whole)
    assert whole.scale.item() != 1.0
    with pytest.raises(KeyboardInterrupt):
        _fit(small_digits, tmp_path / "cut", objective=Scaled(), stop=20)
    _fit(small_digits, tmp_path / "cut", objective=cut)
    assert torch.equal(whole.scale, cut.scale)


def test_clipping_bounds_the_step(small_digits, tmp_path):
    before = _network()
    model, _ = _fit(
        small_digits, tmp_path, _network(), epochs=1, momentum=0.0, weight_decay=0.0, warmup_epochs=0.0, clip_norm=1e-6
    )
    pairs = zip(before.parameters(), model.parameters(), strict=True)
    moved = torch.stack([(a - b).norm() for a, b in pairs]).norm()
    assert 0 < moved <= 8 * 0.05 * 1e-6 * 1.5


def test_a_batch_that_really_does_not_fit(small_digits, tmp_path):
    class Greedy(Supervised):
        def forward(self, model, batch):
            return {"huge": torch.empty(1 << 50).sum()}

    with pytest.raises(OutOfMemoryError, match="does not fit"):
        _fit(small_digits, tmp_path, objective=Greedy())


def test_a_batch_that_fits_the_images_is_told_and_recorded(small_digits, tmp_path, caplog):
    images = len(open_split(small_digits, "train"))
    with caplog.at_level(logging.INFO, "edgekd"):
        _fit(small_digits, tmp_path / "default", epochs=1, batch_size=None, learning_rate=None)
        _fit(small_digits, tmp_path / "large", epochs=1, batch_size=5000)
        _fit(small_digits, tmp_path / "fits", epochs=1, batch_size=images)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    usual, large = (record.getMessage() for record in caplog.records)
    assert usual.startswith("training in batches of 32 and with a learning rate of 0.025, because the images are few")
    assert large == f"batch_size 5000 is more than there are images: training in batches of {images}"
    assert [tuning_of(tmp_path / name)["batch_size"] for name in ("default", "large")] == [32, images]


def test_evaluation_sees_every_image_once(small_digits):
    split = open_split(small_digits, "test")
    loader = Loader(split, small_digits.details.preprocessing, batch_size=7)
    indices = torch.cat([batch.indices for batch in loader.epoch(0)])
    assert indices.tolist() == list(range(len(split)))


TRAIN = """
import sys
from pathlib import Path
import torch
from edgekd.models.checkpoint import Checkpoint
from edgekd.data.dataset import Dataset
from edgekd.recipe.settings import AugmentSettings, ModelSettings, TrainSettings
from edgekd.store.store import StageLabel, Store
from edgekd.training.train import TrainingSetup, train
torch.set_num_threads(1)
data = Dataset.load(Path(sys.argv[1]))
settings = TrainSettings(epochs=6, batch_size=32, learning_rate=0.05)
model = ModelSettings(model="cifar/resnet8")
augment = AugmentSettings(padding=1, flip=False)
store = Store(Path(sys.argv[2]))
store.stage(Checkpoint, StageLabel("train", 1), settings={}, inputs={"data": data},
            make=lambda out: train(model, data, TrainingSetup(settings, augment), out))
"""


def _finished(folder: Path) -> Path:
    (place,) = (folder / "stages").iterdir()
    return Checkpoint.load(place).weights


def test_kill_dash_nine_loses_at_most_the_epoch_at_work(small_digits, tmp_path, monkeypatch):
    """Two processes are killed; what goes on in the end, and what was never killed, is trained in this one."""

    def train(name: str) -> None:
        monkeypatch.setattr(sys, "argv", ["train", str(small_digits.path), str(tmp_path / name)])
        exec(compile(TRAIN, "train", "exec"), {})

    for after in (1, 3):
        killed = subprocess.Popen([sys.executable, "-c", TRAIN, str(small_digits.path), str(tmp_path / "cut")])
        deadline = time.monotonic() + 120
        while not any((tmp_path / "cut").glob(f"partial/*/artifact.resume/epoch-{after}.safetensors")):
            assert killed.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        assert not (tmp_path / "cut" / "stages").exists()
    train("cut")
    train("whole")
    assert file_digest(_finished(tmp_path / "cut")) == file_digest(_finished(tmp_path / "whole"))
    assert not any((tmp_path / "cut" / "partial").iterdir())


def test_a_streamed_folder_trains_to_the_same_bits_as_a_cached_one(tmp_path):
    shades = np.random.default_rng(0).integers(0, 256, (2, 20, 16, 16, 3), dtype=np.uint8)
    for name, images in zip(("dark", "light"), (shades[0] // 2, 255 - shades[1] // 2), strict=True):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "images" / name / f"{index}.png")
    trained = []
    for storage in ("cached", "streamed"):
        (tmp_path / storage).mkdir()
        settings = DataSettings(source="image-folder", root=tmp_path / "images", image_size=16, storage=storage)
        data = prepare(settings, tmp_path / storage)
        trained.append(_fit(data, tmp_path / f"{storage}-state", _network(2), batch_size=8, epochs=2)[0])
    assert _same(*trained)
