"""The overhead of the timing loop: edgekd's loop and a plain one, over the same session, in turns.

    python benchmarks/harness.py [--repetitions 100] [--seconds 0.1] [--threads 1] [--json]

Goal: less than 2 % on the median and on the mean. Many short turns, so that other programs affect both loops equally.
On a busy machine only the median of the medians is meaningful.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.bench.inputs import random_input
from edgekd.bench.timing import summarise, time_calls
from edgekd.runtime.backends.onnxruntime import OrtSession

TINY = (16, [(8, 2)])
MOBILENET_LIKE = (224, [(32, 2), (64, 2), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1)])

_WARMUP_SECONDS = 0.01


def write_model(path: Path, size: int, blocks: list[tuple[int, int]]) -> None:
    """(1, 3, size, size) to (1, 10): a depthwise and a pointwise convolution per block of (channels, stride)."""
    generator = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    last, channels = "image", 3

    def add(kind: str, shape: tuple[int, ...], source: str, **attributes: Any) -> str:
        name = f"t{len(nodes)}"
        scale = 1.0 / np.sqrt(np.prod(shape[1:]))
        weights.append(
            numpy_helper.from_array((generator.standard_normal(shape) * scale).astype(np.float32), f"w{name}")
        )
        nodes.append(helper.make_node(kind, [source, f"w{name}"], [name], **attributes))
        return name

    for width, stride in blocks:
        last = add("Conv", (channels, 1, 3, 3), last, group=channels, strides=[stride, stride], pads=[1, 1, 1, 1])
        last = add("Conv", (width, channels, 1, 1), last)
        nodes.append(helper.make_node("Relu", [last], [f"r{last}"]))
        last, channels = f"r{last}", width
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    add("Gemm", (channels, 10), "flat")
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, size, size])
    scores = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [1, 10])
    graph = helper.make_graph(nodes, path.stem, [image], [scores], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def bare_loop(run: Callable[[], object], seconds: float) -> np.ndarray:
    warm = perf_counter_ns() + int(_WARMUP_SECONDS * 1e9)
    while perf_counter_ns() < warm:
        run()
    samples = []
    deadline = perf_counter_ns() + int(seconds * 1e9)
    while perf_counter_ns() < deadline:
        begin = perf_counter_ns()
        run()
        samples.append(perf_counter_ns() - begin)
    return np.array(samples)


def compare(path: Path, *, repetitions: int, seconds: float, threads: int) -> dict[str, dict[str, float]]:
    """Overhead in percent of the bare loop, for the median and the mean call."""
    session = OrtSession(path, threads=threads)
    info = session.inputs[0]
    array = random_input(tuple(map(int, info.shape)), info.dtype)
    ours, raw = session.bind(array), session._session
    wanted, feed = [session.outputs[0].name], {info.name: array}

    def harness() -> np.ndarray:
        return time_calls(ours, seconds=seconds, warmup_seconds=_WARMUP_SECONDS).samples_ns

    def bare() -> np.ndarray:
        return bare_loop(lambda: raw.run(wanted, feed), seconds)

    bare()
    pairs = []
    for repetition in range(repetitions):
        # The order alternates, so that a drift of the machine favours neither loop.
        first, second = (bare, harness) if repetition % 2 else (harness, bare)
        results = {first: summarise(first()), second: summarise(second())}
        pairs.append((results[harness], results[bare]))
    found = {"p50_ms": float(np.median([theirs.p50 for _, theirs in pairs]))}
    overheads = {
        "p50": [100 * (mine.p50 / theirs.p50 - 1) for mine, theirs in pairs],
        "mean": [100 * (mine.mean / theirs.mean - 1) for mine, theirs in pairs],
    }
    return {"bare": found, **{name: _spread(values) for name, values in overheads.items()}}


def _spread(values: list[float]) -> dict[str, float]:
    low, median, high = (round(float(value), 3) for value in np.percentile(values, (25, 50, 75)))
    return {"median_percent": median, "quarter_percent": low, "three_quarters_percent": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (size, blocks) in {"tiny": TINY, "mobilenet-like": MOBILENET_LIKE}.items():
            path = Path(folder) / f"{name}.onnx"
            write_model(path, size, blocks)
            found[name] = compare(
                path, repetitions=options.repetitions, seconds=options.seconds, threads=options.threads
            )
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, figures in found.items():
        print(f"{name}: {figures['bare']['p50_ms']:.4f} ms per call in the plain loop")
        for figure in ("p50", "mean"):
            median, low, high = figures[figure].values()
            print(f"  {figure:<5} {median:+.2f} % overhead (half of the repetitions from {low:+.2f} to {high:+.2f} %)")


if __name__ == "__main__":
    main()
