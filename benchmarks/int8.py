"""Latency of int8 relative to fp32 in ONNX Runtime on this machine: `python benchmarks/int8.py [--json]`.

Four ImageNet networks with random weights, calibrated on noise: their latency does not depend on what they were
trained on. Batch 1 at 224x224, one thread, the three graphs timed in turns, the fastest round of each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from edgekd.bench.environment import environment
from edgekd.export.int8 import with_constant_scales
from edgekd.export.onnx import graph_of
from edgekd.export.qdq import with_float_weights, with_unsigned_activations, without_fused_branches
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.quantization.placement import freeze, insert, observe
from edgekd.runtime.backends.onnxruntime import OrtSession
from edgekd.runtime.preprocess import InputShape

NETWORKS = ("mobilenet_v2", "resnet18", "shufflenet_v2_x1_0", "mobilenet_v3_small")
SIDE, OPSET, ROUNDS, CALLS = 224, 17, 15, 8


def graphs(name: str) -> dict[str, onnx.ModelProto]:
    torch.manual_seed(0)
    network = build(Architecture(model=f"torchvision/{name}", num_classes=1000))
    noise = torch.randn(4, 3, SIDE, SIDE)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean: the statistics are right after one batch
    with torch.no_grad():
        network.train()(noise)
        quantized = insert(network).model
        observe(quantized)
        quantized(noise)
    freeze(quantized)
    pairs = graph_of(with_constant_scales(quantized), InputShape(3, SIDE, SIDE), OPSET)
    whole = graph_of(network.eval(), InputShape(3, SIDE, SIDE), OPSET)
    return {
        "fp32": whole,
        "int8": with_float_weights(without_fused_branches(pairs)),
        "int8-asym": with_unsigned_activations(pairs),
    }


def measure(name: str) -> dict[str, float]:
    """Milliseconds per call, by variant."""
    inputs = np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        calls = {}
        for variant, graph in graphs(name).items():
            file = Path(folder) / f"{variant}.onnx"
            onnx.save(graph, file)
            calls[variant] = OrtSession(file, threads=1).bind(inputs)
        best = dict.fromkeys(calls, float("inf"))
        for _ in range(ROUNDS):
            for variant, call in calls.items():
                best[variant] = min(best[variant], _fastest(call))
    return best


def _fastest(call: Callable[[], object]) -> float:
    times = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - begin))
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = {name: measure(name) for name in NETWORKS}
    machine = environment()
    if arguments.json:
        print(json.dumps({"environment": machine.model_dump(), "milliseconds": found}, indent=2))
        return
    print("| | fp32 | int8 / fp32 | int8-asym / fp32 |\n|---|---|---|---|")
    for name, times in found.items():
        shares = " | ".join(f"{times[variant] / times['fp32']:.2f}" for variant in ("int8", "int8-asym"))
        print(f"| {name} | {times['fp32']:.2f} ms | {shares} |")
    engine = f"ONNX Runtime {machine.engines['ONNX Runtime']}"
    print(f"\n{machine.cpu}, one thread, {engine}, Python {machine.python}")


if __name__ == "__main__":
    main()
