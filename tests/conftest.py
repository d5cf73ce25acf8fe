"""What many tests share."""

from __future__ import annotations

import os
from pathlib import Path

# Before anything imports torch, and for the processes that tests start: these networks are too small for two threads,
# and on a busy machine two threads wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from samples import seal_bundle, write_linear_onnx

from edgekd.runtime.preprocess import Preprocessing


@pytest.fixture
def linear_bundle(tmp_path: Path) -> Path:
    """A bundle whose network answers with the brightest channel: red, green or blue."""
    folder = tmp_path / "bundle"
    (folder / "vectors").mkdir(parents=True)
    side = 4
    weight = np.repeat(np.eye(3), side * side, axis=0) / (side * side)
    write_linear_onnx(folder / "model.fp32.onnx", weight, side=side)
    preprocessing = Preprocessing(image_size=side, resize=side, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    inputs = preprocessing.normalise(pixels)
    np.save(folder / "vectors" / "images.npy", pixels)
    np.save(folder / "vectors" / "input.npy", inputs)
    np.save(folder / "vectors" / "logits.fp32.npy", inputs.mean((2, 3)))
    manifest = {
        "format": 2,
        "name": "channels",
        "classes": ["red", "green", "blue"],
        "preprocessing": preprocessing.to_json(),
        "variants": {
            "fp32": {
                "file": "model.fp32.onnx",
                "precision": "fp32",
                "activations": "float32",
                "metrics": {"accuracy": 1.0},
                "vectors": "vectors/logits.fp32.npy",
                "tolerance": 1e-3,
            }
        },
        "vectors": {"images": "vectors/images.npy", "inputs": "vectors/input.npy"},
        "provenance": {},
    }
    seal_bundle(folder, manifest)
    return folder


@pytest.fixture(scope="session")
def small_digits(tmp_path_factory: pytest.TempPathFactory):
    """A prepared data set of 256 training digits at 16x16: real images, trained on in a second."""
    from edgekd.data.prepare import prepare
    from edgekd.recipe.settings import DataSettings

    out = tmp_path_factory.mktemp("digits")
    return prepare(DataSettings(source="digits", image_size=16, limit=256, test=0.1, validation=0.1), out)
