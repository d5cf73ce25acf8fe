"""Latency of int8 relative to fp32 in ONNX Runtime on this machine: `python benchmarks/int8.py [NETWORK …]`.

ImageNet networks with random weights, calibrated on noise: their latency does not depend on what they were trained on.
Batch 1 at 224x224, one thread, the three graphs timed in turns, the fastest round of each. The time is that of the
thread's own work, into which nothing else on the machine counts. Of the operators of the optimized int8-asym graph that
read quantized values, those are counted that compute with them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from edgekd.bench.environment import environment
from edgekd.export.fusion import fusion_of
from edgekd.export.int8 import with_constant_scales
from edgekd.export.integer import integer_graph
from edgekd.export.onnx import graph_of
from edgekd.export.qdq import with_float_weights, without_fused_branches
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.edits.activation import RELU
from edgekd.quantization.placement import freeze, insert, observe
from edgekd.runtime import backends
from edgekd.runtime.backends.onnxruntime import OrtSession
from edgekd.runtime.preprocess import InputShape

# Of a name: the network with ReLU instead of hard-swish.
WITH_RELU = " with ReLU"
NETWORKS = (
    "torchvision/mobilenet_v2",
    "torchvision/resnet18",
    "torchvision/shufflenet_v2_x1_0",
    "torchvision/mobilenet_v3_small",
    f"torchvision/mobilenet_v3_small{WITH_RELU}",
)
OTHERS = (
    "torchvision/mobilenet_v3_large",
    f"torchvision/mobilenet_v3_large{WITH_RELU}",
    "timm/mobilenetv4_conv_small",
    "torchvision/mnasnet1_0",
    "torchvision/squeezenet1_1",
    "torchvision/regnet_y_400mf",
    "timm/ghostnet_100",
    "torchvision/efficientnet_b0",
)
SIDE, OPSET, ROUNDS, CALLS = 224, 17, 15, 5


@dataclass(frozen=True)
class Found:
    """Milliseconds per call by variant, and the operators on quantized values of int8-asym."""

    milliseconds: dict[str, float]
    in_integers: int
    in_float: int


def graphs(name: str) -> dict[str, onnx.ModelProto]:
    torch.manual_seed(0)
    architecture = Architecture(model=name.removesuffix(WITH_RELU), num_classes=1000)
    network = build(architecture.edited(dict(RELU)) if name.endswith(WITH_RELU) else architecture)
    noise = torch.randn(2, 3, SIDE, SIDE)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean: the statistics are right after one batch
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.bias)  # the exporter leaves out biases that are 0, as some are before training
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
        "int8-asym": integer_graph(pairs),
    }


def measure(name: str) -> Found:
    optimizer = backends.find("onnxruntime").optimizer
    assert optimizer is not None
    inputs = np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        calls, files = {}, {}
        for variant, graph in graphs(name).items():
            files[variant] = Path(folder) / f"{variant}.onnx"
            onnx.save(graph, files[variant])
            calls[variant] = OrtSession(files[variant], threads=1).bind(inputs)
        best = dict.fromkeys(calls, float("inf"))
        for _ in range(ROUNDS):
            for variant, call in calls.items():
                best[variant] = min(best[variant], _fastest(call))
        fusion = fusion_of(files["int8-asym"], optimizer)
    return Found(best, fusion.quantized, fusion.dequantized)


def _fastest(call: Callable[[], object]) -> float:
    times = []
    for _ in range(CALLS):
        begin = time.thread_time()
        call()
        times.append(1e3 * (time.thread_time() - begin))
    return min(times)


def _row(name: str, found: Found) -> str:
    times = found.milliseconds
    shares = " | ".join(f"{times[variant] / times['fp32']:.2f}" for variant in ("int8", "int8-asym"))
    counted = f"{found.in_integers} of {found.in_integers + found.in_float}"
    return f"| {name.partition('/')[2]} | {times['fp32']:.2f} ms | {shares} | {counted} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="source/name; default: five of torchvision's")
    parser.add_argument("--all", action="store_true", help="thirteen networks instead of five")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    names = arguments.networks or ((*NETWORKS, *OTHERS) if arguments.all else NETWORKS)
    if not arguments.json:
        print("| | fp32 | int8 / fp32 | int8-asym / fp32 | in integers |\n|---|---|---|---|---|")
    found = {}
    for name in names:
        found[name] = measure(name)
        if not arguments.json:
            print(_row(name, found[name]), flush=True)
    machine = environment()
    if arguments.json:
        networks = {name: asdict(each) for name, each in found.items()}
        print(json.dumps({"environment": machine.model_dump(), "networks": networks}, indent=2))
        return
    engine = f"ONNX Runtime {machine.engines['ONNX Runtime']}"
    print(f"\n{machine.cpu}, one thread, {engine}, Python {machine.python}")


if __name__ == "__main__":
    main()
