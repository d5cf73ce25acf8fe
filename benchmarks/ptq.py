"""What int8 without training costs: `EDGEKD_DATA=… python benchmarks/ptq.py [--calibration mse] [--swap] [--json]`.

MobileNetV2 with published weights on 1,000 photos, one of each ImageNet class: every second one calibrates, the others
score. `--swap` exchanges the halves. Shows top-1, the share of fp32's answers, and the signal-to-noise ratio of logits,
which varies less than 500 answers do, of edgekd's graphs and of ONNX Runtime's `quantize_static`, and the seconds. For
percentile and entropy, ONNX Runtime keeps all activations: more than 24 GiB.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

from edgekd.bench.environment import environment
from edgekd.export.int8 import with_constant_scales
from edgekd.export.onnx import graph_of
from edgekd.export.qdq import with_float_weights, with_unsigned_activations, without_fused_branches
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.quantization.calibration import AUTO
from edgekd.quantization.calibrators import METHODS
from edgekd.quantization.post_training import EXAMPLES, post_training
from edgekd.runtime.backends.onnxruntime import OrtSession
from edgekd.runtime.preprocess import Preprocessing, centre_crop

PHOTOS, WEIGHTS = "imagenet_sample1k_256.tar", "weights/imagenet_mobilenet_v2_torchvision.pth"
OPSET, BATCH, THREADS = 17, 32, 2
SEEN = Preprocessing((224, 224), (256, 256), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
NEIGHBOURS = {
    "min-max": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}

Floats = npt.NDArray[np.float32]
Score = dict[str, float]


def photos(folder: Path) -> tuple[Floats, npt.NDArray[np.int64]]:
    """(1000, 3, 224, 224) normalised, and their classes."""
    images, classes = [], []
    with tarfile.open(folder / PHOTOS) as archive:
        for name in sorted(member.name for member in archive.getmembers() if member.isfile()):
            held = archive.extractfile(name)
            assert held is not None
            with Image.open(io.BytesIO(held.read())) as image:
                # Their shorter side is 256: only cut, not scaled.
                images.append(centre_crop(np.asarray(image.convert("RGB")), SEEN.image_size))
            classes.append(int(Path(name).parent.name.split("_")[0]))
    return SEEN.normalise(np.stack(images)), np.array(classes)


def batches(images: Floats) -> Iterator[Floats]:
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH]


def logits(file: Path, images: Floats, *, as_written: bool = False) -> Floats:
    session = OrtSession(file, threads=THREADS, as_written=as_written)
    return np.concatenate([session.bind(batch)() for batch in batches(images)])


def score(found: Floats, expected: Floats, classes: npt.NDArray[np.int64]) -> Score:
    answers = found.argmax(1)
    noise = np.square(found - expected).mean()
    return {
        "top-1 %": 100 * float((answers == classes).mean()),
        "equal %": 100 * float((answers == expected.argmax(1)).mean()),
        "dB": float(10 * np.log10(np.square(expected).mean() / noise)) if noise else float("inf"),
    }


class _Clock:
    """Seconds since it was made: on the wall, and of all cores, which other work on the machine changes less."""

    def __init__(self) -> None:
        self._begin = time.perf_counter(), time.process_time()

    def passed(self) -> dict[str, float]:
        wall, cores = self._begin
        return {"wall": time.perf_counter() - wall, "cores": time.process_time() - cores}


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, images: Floats) -> None:
        self._left = iter([{name: image[np.newaxis]} for image in images])

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._left, None)


def neighbour(fp32: Path, method: str, images: Floats, out: Path) -> None:
    """ONNX Runtime's own: per channel, uint8 activations and int8 weights."""
    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
    name = onnx.load(prepared).graph.input[0].name
    quantize_static(
        str(prepared),
        str(out),
        _Images(name, images),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=NEIGHBOURS[method],
    )


def measure(arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    torch.set_num_threads(THREADS)
    images, classes = photos(arguments.data)
    halves = slice(0, None, 2), slice(1, None, 2)
    calibrating, scoring = reversed(halves) if arguments.swap else halves
    shown, wanted = images[calibrating], classes[scoring]
    network = build(Architecture(model="torchvision/mobilenet_v2", num_classes=1000))
    network.load_state_dict(torch.load(arguments.data / WEIGHTS, weights_only=True))
    onnx.save(graph_of(network.eval(), SEEN.shape, OPSET), out / "fp32.onnx")
    begin = _Clock()
    examples = torch.from_numpy(shown[:: -(-len(shown) // EXAMPLES)])
    made = post_training(network, examples, map(torch.from_numpy, batches(shown)), arguments.calibration)
    seconds = {"edgekd int8": begin.passed()}
    pairs = graph_of(with_constant_scales(made.quantized.model), SEEN.shape, OPSET)
    onnx.save(with_float_weights(without_fused_branches(pairs)), out / "int8.onnx")
    onnx.save(with_unsigned_activations(pairs), out / "int8-asym.onnx")
    expected = logits(out / "fp32.onnx", images[scoring])
    scores = {"fp32": score(expected, expected, wanted)}
    for name in ("int8", "int8-asym"):
        found = logits(out / f"{name}.onnx", images[scoring], as_written=name == "int8")
        scores[f"edgekd {name}"] = score(found, expected, wanted)
    for method in arguments.neighbours:
        begin = _Clock()
        neighbour(out / "fp32.onnx", method, shown, out / f"{method}.onnx")
        seconds[f"ONNX Runtime {method}"] = begin.passed()
        scores[f"ONNX Runtime {method}"] = score(logits(out / f"{method}.onnx", images[scoring]), expected, wanted)
    return {"methods": made.methods, "seconds": seconds, "scores": scores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", choices=(AUTO, *METHODS), default=AUTO)
    parser.add_argument("--neighbours", nargs="*", choices=tuple(NEIGHBOURS), default=["min-max"])
    parser.add_argument("--swap", action="store_true", help="exchange the halves")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if "EDGEKD_DATA" not in os.environ:
        parser.error("EDGEKD_DATA is not set: it names the folder with the photos and the weights")
    arguments.data = Path(os.environ["EDGEKD_DATA"])
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments, Path(folder))
    machine = environment()
    if arguments.json:
        print(json.dumps({"environment": machine.model_dump(), **found}, indent=2))
        return
    print("| | top-1 | as fp32 | SNR of the logits | calibrated in | of all cores |\n|---|---|---|---|---|---|")
    for name, each in found["scores"].items():
        took = found["seconds"].get(name)
        times = "| " if took is None else f"{took['wall']:.0f} s | {took['cores']:.0f} s"
        print(f"| {name} | {each['top-1 %']:.1f} % | {each['equal %']:.1f} % | {each['dB']:.1f} dB | {times} |")
    print(f"\nActivations by method: {', '.join(f'{count} {name}' for name, count in found['methods'].items())}.")
    print(f"{machine.cpu}, {THREADS} threads, ONNX Runtime {machine.engines['ONNX Runtime']}, Python {machine.python}")


if __name__ == "__main__":
    main()
