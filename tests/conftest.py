"""What many tests share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

# Before anything imports torch, and for the processes that tests start: these networks are too small for two threads,
# and on a busy machine two threads wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from samples import seal_bundle, write_linear_onnx, write_small_onnx
from tensorrt_stand_in import DRIVER

from edgekd.runtime.backends import _cuda
from edgekd.runtime.preprocess import Preprocessing

ACTIVATIONS = {"fp32": "float32", "fp16": "float16", "int8": "int8", "int8-asym": "uint8", "fp8": "float8"}


@pytest.fixture(scope="session", autouse=True)
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads what an earlier run verified on this machine, nor leaves anything in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def linear_bundle(tmp_path: Path) -> Path:
    """A bundle whose network answers with the brightest channel: red, green or blue."""
    folder = tmp_path / "bundle"
    (folder / "vectors").mkdir(parents=True)
    side = 4
    weight = np.repeat(np.eye(3), side * side, axis=0) / (side * side)
    write_linear_onnx(folder / "model.fp32.onnx", weight, side=side)
    preprocessing = Preprocessing((side, side), (side, side), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
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


@pytest.fixture
def many_bundle(linear_bundle: Path) -> Callable[..., Path]:
    """The linear bundle with one graph per variant, all computing the same; `changes` go into bundle.json."""

    def build(*names: str, **changes: object) -> Path:
        manifest = json.loads((linear_bundle / "bundle.json").read_text())
        record = manifest["variants"].pop("fp32")
        for name in names:
            file = f"model.{name}.onnx"
            if name != "fp32":
                shutil.copy(linear_bundle / record["file"], linear_bundle / file)
            kinds = {"precision": name.partition("-")[0], "activations": ACTIVATIONS[name]}
            manifest["variants"][name] = {**record, **kinds, "file": file, "later": "ignored"}
        seal_bundle(linear_bundle, {**manifest, **changes})
        return linear_bundle

    return build


@pytest.fixture(scope="session")
def small_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """(N, 3, 8, 8) to (N, 4): one convolution, one Gemm."""
    return write_small_onnx(tmp_path_factory.mktemp("onnx") / "small.onnx", ["batch", 3, 8, 8])


@pytest.fixture(scope="session")
def small_digits(tmp_path_factory: pytest.TempPathFactory):
    """A prepared data set of 256 training digits at 16x16: real images, trained on in a second."""
    from edgekd.data.prepare import prepare
    from edgekd.recipe.settings import DataSettings

    out = tmp_path_factory.mktemp("digits")
    return prepare(DataSettings(source="digits", image_size=16, limit=256, test=0.1, validation=0.1), out)


@pytest.fixture(scope="session")
def exported(small_digits, tmp_path_factory):
    """A checkpoint with its fp32 and fp16 graphs; untrained, but with statistics of its own."""
    import torch

    from edgekd.export.numerics import real_inputs
    from edgekd.export.variants import find
    from edgekd.models import checkpoint as checkpoints
    from edgekd.models.architecture import Architecture
    from edgekd.models.build import build
    from edgekd.recipe.settings import ExportSettings

    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(3)
    architecture = Architecture(model="cifar/resnet8", num_classes=10)
    network = build(architecture)
    network.train()(torch.from_numpy(real_inputs(small_digits)))
    for name in ("checkpoint", "fp32", "fp16"):
        (folder / name).mkdir()
    student = checkpoints.save(
        network,
        architecture,
        preprocessing=small_digits.details.preprocessing,
        classes=small_digits.classes,
        out=folder / "checkpoint",
    )
    settings = ExportSettings()
    fp32 = find("fp32").export(student, small_digits, settings, folder / "fp32")
    return student, {"fp32": fp32, "fp16": find("fp16").export(fp32, small_digits, settings, folder / "fp16")}


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Builds a driver over malloc and memcpy; what it promises is CUDA's, where it stores is not."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")

    def build(gpus: int, *, name: str = "Orin", capability: tuple[int, int] = (8, 7)) -> str:
        folder = tmp_path_factory.mktemp("driver")
        library = folder / "libcuda.so.1"
        (folder / "driver.c").write_text(DRIVER)
        facts = {"GPUS": gpus, "NAME": f'"{name}"', "MAJOR": capability[0], "MINOR": capability[1]}
        macros = [f"-D{key}={value}" for key, value in facts.items()]
        subprocess.run([compiler, "-shared", "-fPIC", *macros, "-o", library, folder / "driver.c"], check=True)
        return str(library)

    return build


@pytest.fixture
def device(stand_in, tmp_path, monkeypatch) -> Callable[..., ModuleType]:
    """Makes this machine one with a GPU and a TensorRT, both stand-ins, also for the processes that it starts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Recorded first, so undone last: whatever a test puts there, no stand-in outlives it.
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    def become(version: str = "10.3.0", **gpu: object) -> ModuleType:
        library = stand_in(1, **gpu)
        monkeypatch.setattr(_cuda, "LIBRARY", library)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(Path(library).parent))
        package = tmp_path / f"tensorrt-{version}" / "tensorrt"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(
            "from tensorrt_stand_in import namespace\n"
            f"names = vars(namespace({version!r}))\n"
            "globals().update({k: v for k, v in names.items() if k[:2] != '__' or k == '__version__'})\n"
        )
        monkeypatch.syspath_prepend(package.parent)
        sys.modules.pop("tensorrt", None)
        import tensorrt

        return tensorrt

    return become
