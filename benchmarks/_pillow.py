"""The data path of most training scripts: Pillow and torchvision's transforms, image by image.

Only torch, torchvision and Pillow, because the other tool's interpreter imports this file too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Images(Dataset[tuple[torch.Tensor, int]]):
    """What torchvision.datasets.CIFAR10 does, over the arrays of a prepared data set."""

    def __init__(self, data: Path, *, side: int) -> None:
        self.pixels = np.load(data / "train.npy")
        self.labels = np.load(data / "train-labels.npy").tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(side, padding=side // 8),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def image_loader(data: Path, *, side: int, batch_size: int, workers: int) -> DataLoader[tuple[torch.Tensor, int]]:
    images = Images(data, side=side)
    return DataLoader(images, batch_size, shuffle=True, num_workers=workers, drop_last=True)
