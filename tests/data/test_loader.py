from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgekd.data.augment import draw_view, pad_crop
from edgekd.data.dataset import Split, open_split
from edgekd.data.loader import Batch, Loader, Variation, fitting_batch
from edgekd.data.prepare import prepare
from edgekd.errors import DataError
from edgekd.recipe.settings import AugmentSettings, DataSettings
from edgekd.runtime.preprocess import Preprocessing

MakeFolder = Callable[[Mapping[str, int]], Path]
PREPROCESSING = Preprocessing((14, 14), (16, 16))
TRAINING: dict[str, Any] = {"variation": Variation(AugmentSettings(), mirror=True, seed=7)}


@pytest.fixture
def open_train(make_folder: MakeFolder, tmp_path: Path) -> Callable[[str], Split]:
    root = make_folder({"train/a": 13, "train/b": 10, "val/a": 2, "val/b": 2, "test/a": 1, "test/b": 1})

    def opened(storage: Any) -> Split:
        out = tmp_path / storage
        out.mkdir()
        settings = DataSettings(source="image-folder", root=root, image_size=16, storage=storage)
        return open_split(prepare(settings, out), "train")

    return opened


@pytest.fixture
def split(open_train: Callable[[str], Split]) -> Split:
    return open_train("cached")


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) and torch.equal(a.indices, b.indices)
        for a, b in zip(one, other, strict=True)
    )


def test_evaluation_sees_what_the_device_sees(split: Split, tmp_path: Path) -> None:
    batches = list(Loader(split, PREPROCESSING, batch_size=10).epoch(0))
    assert [len(batch.targets) for batch in batches] == [10, 10, 3]
    files = [tmp_path / f"images/train/{name}/{n}.png" for name, count in (("a", 13), ("b", 10)) for n in range(count)]
    paths = sorted(files)
    made = torch.cat([batch.images for batch in batches]).numpy()
    for path, image in zip(paths, made, strict=True):
        expected = PREPROCESSING.normalise(PREPROCESSING.pixels(Image.open(path))[None])[0]
        assert np.abs(image - expected).max() <= 1e-6
    assert torch.cat([batch.targets for batch in batches]).tolist() == [0] * 13 + [1] * 10
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(23))


def test_training_shuffles_and_drops_the_short_batch(split: Split) -> None:
    loader = Loader(split, PREPROCESSING, batch_size=10, **TRAINING)
    first, second = list(loader.epoch(0)), list(loader.epoch(1))
    assert len(loader) == len(first) == 2
    indices = [torch.cat([batch.indices for batch in epoch]).tolist() for epoch in (first, second)]
    assert len(set(indices[0])) == 20 and indices[0] != indices[1]
    for batch in first:
        assert batch.images.shape == (10, 3, 14, 14) and batch.images.dtype == torch.float32
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.targets.tolist() == split.labels[batch.indices.numpy()].tolist()


@pytest.mark.parametrize(
    ("wanted", "images", "size"),
    [
        (None, 50_000, 128),
        (None, 1_024, 128),
        (None, 1_023, 120),
        (None, 195, 24),  # 8 steps per epoch
        (None, 60, 8),
        (None, 5, 5),
        (128, 195, 128),
        (500, 195, 195),
        (64, 1, 1),
    ],
)
def test_a_batch_fits_the_images(wanted: int | None, images: int, size: int) -> None:
    assert fitting_batch(wanted, images) == size


def test_the_only_batch_is_kept(split: Split) -> None:
    loader = Loader(split, PREPROCESSING, batch_size=100, **TRAINING)
    (batch,) = loader.epoch(0)
    assert len(loader) == 1 and len(batch.targets) == 23


def test_what_an_image_looks_like_does_not_depend_on_its_batch(split: Split) -> None:
    """Batch size, the order of epochs and where one starts must not matter; the view's seed brings it back."""
    small = list(Loader(split, PREPROCESSING, batch_size=5, **TRAINING).epoch(4))
    (whole,) = Loader(split, PREPROCESSING, batch_size=23, **TRAINING).epoch(4)
    seen = dict(zip(whole.indices.tolist(), whole.images, strict=True))
    for batch in small:
        for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
            assert torch.equal(seen[index], image)
    view = draw_view(7, 4, 23)
    crops = pad_crop(torch.from_numpy(split.pixels(np.arange(23))), view, size=(14, 14), padding=1, flip=True)
    expected = PREPROCESSING.normalise(crops.numpy())
    assert all(np.abs(seen[index].numpy() - expected[index]).max() <= 1e-6 for index in range(23))


@pytest.mark.parametrize(
    "options", [{}, TRAINING, {"variation": Variation(AugmentSettings(crop="resized"), mirror=True, seed=7)}]
)
def test_equal_bits_whatever_reads(open_train: Callable[[str], Split], options: dict[str, Any]) -> None:
    cached, streamed = open_train("cached"), open_train("streamed")

    def batches(split: Split, workers: int) -> list[Batch]:
        return list(Loader(split, PREPROCESSING, batch_size=6, workers=workers, **options).epoch(2))

    reference = batches(cached, 0)
    assert same(reference, batches(cached, 0)) and same(reference, batches(streamed, 0))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_worker_processes_change_nothing(open_train: Callable[[str], Split]) -> None:
    cached, streamed = open_train("cached"), open_train("streamed")
    state = torch.get_rng_state()
    reference = list(Loader(cached, PREPROCESSING, batch_size=6, **TRAINING).epoch(2))
    for split in (cached, streamed):
        assert same(reference, list(Loader(split, PREPROCESSING, batch_size=6, workers=2, **TRAINING).epoch(2)))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_went_away_is_named(open_train: Callable[[str], Split], tmp_path: Path, workers: int) -> None:
    loader = Loader(open_train("streamed"), PREPROCESSING, batch_size=6, workers=workers)
    (tmp_path / "images/train/a/0.png").unlink()
    with pytest.raises(DataError, match="^train/a/0.png can no longer be read") as caught:
        list(loader.epoch(0))
    assert caught.value.hint is not None


@pytest.mark.gpu
def test_batches_on_a_gpu(split: Split) -> None:
    here = list(Loader(split, PREPROCESSING, batch_size=6, **TRAINING).epoch(0))
    there = list(Loader(split, PREPROCESSING, batch_size=6, device="cuda", **TRAINING).epoch(0))
    for one, other in zip(here, there, strict=True):
        assert other.images.device.type == "cuda" and torch.allclose(one.images, other.images.cpu(), atol=1e-6)
        assert torch.equal(one.targets, other.targets.cpu()) and torch.equal(one.indices, other.indices.cpu())
