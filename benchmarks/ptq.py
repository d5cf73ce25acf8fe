"""What int8 without training costs: `EDGEKD_DATA=… python benchmarks/ptq.py [--swap] [--neighbours …] [--json]`.

MobileNetV2 with published weights on 1,000 photos, one of each ImageNet class: every second one calibrates, the others
score. `--swap` exchanges the halves. Shows top-1, the share of fp32's answers, and the signal-to-noise ratio of logits,
which varies less than 500 answers do, of edgekd's graphs and of its neighbours', the seconds of each calibration, and
the latency of what runs in ONNX Runtime, all in one interleaved run on one thread.

Neighbours are ONNX Runtime's `quantize_static` (min-max, percentile, entropy), and with `--python`, an interpreter that
has them, NNCF and NVIDIA's modelopt. Where a neighbour keeps all activations in memory (percentile, entropy, modelopt:
more than 24 GiB for 500 images), it calibrates on `--kept` images.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
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
from edgekd.bench.interleaved import compare_latency
from edgekd.export.int8 import with_constant_scales
from edgekd.export.integer import integer_graph
from edgekd.export.onnx import graph_of
from edgekd.export.qdq import with_float_weights, without_fused_branches
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.quantization.calibration import AUTO
from edgekd.quantization.calibrators import METHODS
from edgekd.quantization.post_training import EXAMPLES, post_training
from edgekd.runtime.backends.onnxruntime import OrtSession
from edgekd.runtime.preprocess import Preprocessing, centre_crop

PHOTOS, WEIGHTS = "imagenet_sample1k_256.tar", "weights/imagenet_mobilenet_v2_torchvision.pth"
OPSET, BATCH, THREADS, ROUNDS = 17, 32, 2, 15
SEEN = Preprocessing((224, 224), (256, 256), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
NEIGHBOURS = {
    "min-max": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
# Run by benchmarks/ptq_neighbours.py.
ELSEWHERE = {"nncf": "NNCF", "modelopt": "modelopt"}
# They keep all activations of all images.
KEEP_ALL = ("percentile", "entropy", "modelopt")
KEPT = 32

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


def elsewhere(python: Path, tool: str, fp32: Path, images: Floats, out: Path) -> str:
    """Another toolkit's, in an interpreter that has it; its version."""
    held, own = out.with_suffix(".npy"), out.with_suffix(".fp32.onnx")
    np.save(held, images)
    # A copy: modelopt rewrites the file that it reads.
    shutil.copy(fp32, own)
    script = Path(__file__).absolute().with_name("ptq_neighbours.py")
    command = [str(each) for each in (python.absolute(), script, tool, own, held, out)]
    # Without this project's packages.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environ, cwd=out.parent, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.split()[-1]


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
    onnx.save(integer_graph(pairs), out / "int8-asym.onnx")
    expected = logits(out / "fp32.onnx", images[scoring])
    scores = {"fp32": score(expected, expected, wanted)}
    for name in ("int8", "int8-asym"):
        found = logits(out / f"{name}.onnx", images[scoring], as_written=name == "int8")
        scores[f"edgekd {name}"] = score(found, expected, wanted)
    files = {"fp32": out / "fp32.onnx", "edgekd int8-asym": out / "int8-asym.onnx"}
    for method in arguments.neighbours:
        begin, file = _Clock(), out / f"{method}.onnx"
        used = shown[:: -(-len(shown) // arguments.kept)] if method in KEEP_ALL else shown
        if method in ELSEWHERE:
            name = f"{ELSEWHERE[method]} {elsewhere(arguments.python, method, out / 'fp32.onnx', used, file)}"
        else:
            name = f"ONNX Runtime {method}"
            neighbour(out / "fp32.onnx", method, used, file)
        name += f", {len(used)} images" if len(used) < len(shown) else ""
        # The cores of another process are not known.
        seconds[name] = begin.passed() if method not in ELSEWHERE else {"wall": begin.passed()["wall"]}
        scores[name] = score(logits(file, images[scoring]), expected, wanted)
        files[name] = file
    compared = compare_latency(list(files.values()), backend="onnxruntime", threads=1, rounds=ROUNDS)
    return {
        "methods": made.methods,
        "seconds": seconds,
        "scores": scores,
        "latency_ms": dict(zip(files, compared.milliseconds, strict=True)),
        "latency_ratio": dict(zip(files, compared.ratios, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", choices=(AUTO, *METHODS), default=AUTO)
    parser.add_argument("--neighbours", nargs="*", choices=(*NEIGHBOURS, *ELSEWHERE), default=["min-max"])
    parser.add_argument("--python", type=Path, help="an interpreter that has nncf and nvidia-modelopt[onnx]")
    parser.add_argument("--kept", type=int, default=KEPT, help=f"images for {', '.join(KEEP_ALL)}")
    parser.add_argument("--swap", action="store_true", help="exchange the halves")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if "EDGEKD_DATA" not in os.environ:
        parser.error("EDGEKD_DATA is not set: it names the folder with the photos and the weights")
    if arguments.python is None and set(arguments.neighbours) & set(ELSEWHERE):
        parser.error(f"{', '.join(ELSEWHERE)} need --python: an interpreter that has them")
    arguments.data = Path(os.environ["EDGEKD_DATA"])
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments, Path(folder))
    machine = environment()
    if arguments.json:
        print(json.dumps({"environment": machine.model_dump(), **found}, indent=2))
        return
    titles = ("", "top-1", "as fp32", "SNR of the logits", "latency", "to fp32", "calibrated in", "of all cores")
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for name, each in found["scores"].items():
        milliseconds, ratio = found["latency_ms"].get(name), found["latency_ratio"].get(name)
        fast = (f"{milliseconds:.2f} ms", f"{ratio:.2f}") if milliseconds is not None else ("", "")
        took = found["seconds"].get(name, {})
        times = [f"{took[clock]:.0f} s" if clock in took else "" for clock in ("wall", "cores")]
        scored = (f"{each['top-1 %']:.1f} %", f"{each['equal %']:.1f} %", f"{each['dB']:.1f} dB")
        print(f"| {' | '.join((name, *scored, *fast, *times))} |")
    print(f"\nActivations by method: {', '.join(f'{count} {name}' for name, count in found['methods'].items())}.")
    print(f"{machine.cpu}, {THREADS} threads, ONNX Runtime {machine.engines['ONNX Runtime']}, Python {machine.python}")


if __name__ == "__main__":
    main()
