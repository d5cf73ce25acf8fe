"""Images per second of several ways to augment 32×32 training images: `python benchmarks/data.py [--json]`.

All of them shift by up to 4 pixels over a black border, mirror half of the images and normalise; they differ in whether
they work per image or per batch. The images are synthetic. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from edgekd.data.augment import Normalise, draw_view, pad_crop
from edgekd.data.dataset import Dataset, DatasetDetails, open_split
from edgekd.data.loader import Loader, Variation
from edgekd.recipe.settings import AugmentSettings
from edgekd.runtime.preprocess import Pixels, Preprocessing

PREPROCESSING = Preprocessing((32, 32), (32, 32))
PADDING = 4
BATCH = 128
COUNT = 4096
REPEATS = 5


def shuffled(count: int) -> Iterator[npt.NDArray[np.int64]]:
    order = np.random.default_rng(0).permutation(count)
    yield from (order[start : start + BATCH] for start in range(0, count, BATCH))


def batched(images: Pixels) -> Iterator[torch.Tensor]:
    view = draw_view(0, 0, len(images))
    normalise = Normalise(PREPROCESSING, torch.device("cpu"))
    for indices in shuffled(len(images)):
        pixels = torch.from_numpy(images[indices])
        crops = pad_crop(pixels, view[indices], size=(32, 32), padding=PADDING, flip=True)
        yield normalise(crops)


def loader(folder: Path) -> Iterator[torch.Tensor]:
    split = open_split(Dataset.load(folder), "train")
    batches = Loader(split, PREPROCESSING, batch_size=BATCH, variation=Variation(AugmentSettings(), mirror=True))
    yield from (batch.images for batch in batches.epoch(0))


def torchvision_one_by_one(images: Pixels) -> Iterator[torch.Tensor]:
    transform = v2.Compose([
        v2.RandomCrop(32, padding=PADDING),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(PREPROCESSING.mean, PREPROCESSING.std),
    ])  # fmt: skip
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    for indices in shuffled(len(images)):
        yield torch.stack([transform(pixels[index]) for index in indices.tolist()])


def pillow_one_by_one(images: Pixels) -> Iterator[torch.Tensor]:
    for indices in shuffled(len(images)):
        crops = np.stack([_pillow(images[index]) for index in indices.tolist()])
        yield torch.from_numpy(PREPROCESSING.normalise(crops))


def _pillow(pixels: Pixels) -> Pixels:
    image = ImageOps.expand(Image.fromarray(pixels), PADDING)
    left, top = random.randint(0, 2 * PADDING), random.randint(0, 2 * PADDING)
    crop = image.crop((left, top, left + 32, top + 32))
    return np.asarray(ImageOps.mirror(crop) if random.random() < 0.5 else crop)


def images_per_second(epoch: Callable[[], Iterator[torch.Tensor]]) -> float:
    """The median of several epochs, after a warm-up epoch."""
    rates = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        count = sum(len(images) for images in epoch())
        rates.append(count / (time.perf_counter() - start))
    return statistics.median(rates[1:])


def measure(folder: Path) -> dict[str, float]:
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
    np.save(folder / "train.npy", images)
    np.save(folder / "train-labels.npy", np.zeros(COUNT, np.int64))
    details = DatasetDetails(
        source="noise",
        classes=("noise",),
        preprocessing=PREPROCESSING,
        mirror=True,
        storage="cached",
        counts={"train": COUNT},
    )
    Dataset.seal(folder, details=details)
    mapped = np.load(folder / "train.npy", mmap_mode="r").view(np.ndarray)
    ways: dict[str, Callable[[], Iterator[torch.Tensor]]] = {
        "edgekd, batched, in memory": lambda: batched(images),
        "edgekd, batched, memory-mapped": lambda: batched(mapped),
        "edgekd, Loader over a cached set": lambda: loader(folder),
        "torchvision v2, one by one": lambda: torchvision_one_by_one(images),
        "Pillow, one by one": lambda: pillow_one_by_one(images),
    }
    return {name: round(images_per_second(epoch)) for name, epoch in ways.items()}


def machine() -> dict[str, object]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = ("numpy", "pillow", "torch", "torchvision")
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="for machines")
    as_json = parser.parse_args().json
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(Path(folder))
    if as_json:
        print(json.dumps({"machine": machine(), "images_per_second": rates}, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in machine().items()), end="\n\n")
    for name, rate in rates.items():
        print(f"{name:36}{rate:>12,.0f} images/s")


if __name__ == "__main__":
    main()
