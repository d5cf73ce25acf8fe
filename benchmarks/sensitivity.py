"""What int8 costs where: `EDGEKD_DATA=… python benchmarks/sensitivity.py [--images 64] [--seconds 0.1] [--json]`.

MobileNetV2 with published weights, calibrated on 500 photos as in ptq.py; every second one of 1,000. The others score.
For the first layer, the last one, the residual additions and the depthwise layers: the error of the answers where each
alone is in int8, added up, PyTorch's score where they alone stay in float, and the latency of that in ONNX Runtime, all
in turns. With random weights, and their latencies only, the squeeze-excite blocks and hard-swish of
MobileNetV3.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import ptq
import torch
from torch import nn

from edgekd.bench.environment import environment
from edgekd.bench.interleaved import compare_latency
from edgekd.export.int8 import with_constant_scales
from edgekd.export.integer import integer_graph
from edgekd.export.onnx import graph_of
from edgekd.export.subnormals import flush_subnormals
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.quantization.calibration import AUTO
from edgekd.quantization.float_layers import operations
from edgekd.quantization.post_training import EXAMPLES, PostTraining, post_training, with_float
from edgekd.quantization.sensitivity import scan

Groups = dict[str, tuple[str, ...]]


def groups_of(made: PostTraining) -> Groups:
    """The operations by what they are, without empty groups."""
    known = operations(made.reference)
    layers = {name: made.reference.get_submodule(name) for name, node in known.items() if node.op == "call_module"}
    weighted = [name for name, layer in layers.items() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    gates = {name.rsplit(".", 1)[0] for name in known if name.endswith((".fc1", ".fc2"))}
    found = {
        "first layer": tuple(weighted[:1]),
        "last layer": tuple(weighted[-1:]),
        "residual additions": tuple(name for name, node in known.items() if node.name.split("_")[0] == "add"),
        "squeeze-excite": tuple(name for name in known if name.rsplit(".", 1)[0] in gates),
        "hard-swish": tuple(name for name, layer in layers.items() if isinstance(layer, nn.Hardswish)),
        "depthwise layers": tuple(name for name in weighted if getattr(layers[name], "groups", 1) > 1),
    }
    return {name: group for name, group in found.items() if group}


def latencies(made: PostTraining, groups: Groups, seconds: float, fp32: nn.Module) -> dict[str, tuple[float, float]]:
    """Ratio to all in int8 and its spread, in turns with one thread: of fp32 and of each group in float."""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{number}.onnx" for number, name in enumerate(["all in int8", "fp32", *groups])}
        onnx.save(flushed(graph_of(fp32, ptq.SEEN.shape, ptq.OPSET)), files["fp32"])
        for name, keep in {"all in int8": (), **groups}.items():
            network = with_float(made, keep).model
            graph = flushed(graph_of(with_constant_scales(network), ptq.SEEN.shape, ptq.OPSET))
            onnx.save(integer_graph(graph), files[name])
        measured = compare_latency(list(files.values()), backend="onnxruntime", threads=1, seconds=seconds)
    return dict(zip(files, zip(measured.ratios, measured.spread, strict=True), strict=True))


def flushed(graph: onnx.ModelProto) -> onnx.ModelProto:
    """As the exports are: weights too small to be normal numbers would slow a processor down."""
    flush_subnormals(graph)
    return graph


def answers(network: nn.Module, images: ptq.Floats) -> ptq.Floats:
    with torch.inference_mode():
        return np.concatenate([network(torch.from_numpy(batch)).numpy() for batch in ptq.batches(images)])


def mobilenet_v2(data: Path, count: int, seconds: float) -> dict[str, Any]:
    images, classes = ptq.photos(data)
    shown, scored, wanted = images[::2], images[1::2], classes[1::2]
    network = build(Architecture(model="torchvision/mobilenet_v2", num_classes=1000)).eval()
    network.load_state_dict(torch.load(data / ptq.WEIGHTS, weights_only=True))
    made = calibrated(network, shown)
    groups = groups_of(made)
    chosen = scored[np.linspace(0, len(scored) - 1, count).astype(int)]
    batches = [torch.from_numpy(batch).contiguous(memory_format=torch.channels_last) for batch in ptq.batches(chosen)]
    alone = {each.name: each.error for each in scan(made.reference, made.quantized.model, batches)}
    expected = answers(made.reference, scored)
    scores = {
        name: ptq.score(answers(with_float(made, keep).model, scored), expected, wanted)
        for name, keep in {"all in int8": (), **groups}.items()
    }
    return {"alone": alone, "groups": groups, "scores": scores, "latency": latencies(made, groups, seconds, network)}


def mobilenet_v3(seconds: float) -> dict[str, Any]:
    torch.manual_seed(0)
    network = build(Architecture(model="torchvision/mobilenet_v3_small", num_classes=1000)).eval()
    made = calibrated(network, np.random.default_rng(0).normal(size=(64, 3, 224, 224)).astype(np.float32))
    groups = {name: keep for name, keep in groups_of(made).items() if name in ("squeeze-excite", "hard-swish")}
    groups["squeeze-excite and hard-swish"] = tuple(name for keep in groups.values() for name in keep)
    return {"groups": groups, "latency": latencies(made, groups, seconds, network)}


def calibrated(network: nn.Module, shown: ptq.Floats) -> PostTraining:
    examples = torch.from_numpy(shown[:: -(-len(shown) // EXAMPLES)])
    return post_training(network, examples, map(torch.from_numpy, ptq.batches(shown)), AUTO)


def show(found: dict[str, Any]) -> None:
    alone = found.get("alone", {})
    print("| in float | operations | error alone in int8 | top-1 | SNR of the logits | latency to all in int8 |")
    print("|---|---|---|---|---|---|")
    for name, (ratio, spread) in found["latency"].items():
        keep: Sequence[str] = found["groups"].get(name, ())
        cost = f"{100 * sum(alone[each] for each in keep):.3f} %" if alone and keep else ""
        each = found.get("scores", {}).get(name)
        score = f"{each['top-1 %']:.1f} % | {each['dB']:.1f} dB" if each is not None else "| "
        print(f"| {name} | {len(keep) or ''} | {cost} | {score} | {ratio:.2f} ± {spread:.2f} |")
    worst = sorted(alone.items(), key=lambda item: -item[1])[:5]
    if worst:
        print("\nMost sensitive: " + ", ".join(f"{name} {100 * error:.3f} %" for name, error in worst) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="that the scan looks at")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a turn when latencies are measured")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if "EDGEKD_DATA" not in os.environ:
        parser.error("EDGEKD_DATA is not set: it names the folder with the photos and the weights")
    torch.set_num_threads(ptq.THREADS)
    found = {
        "MobileNetV2": mobilenet_v2(Path(os.environ["EDGEKD_DATA"]), arguments.images, arguments.seconds),
        "MobileNetV3-small, random weights": mobilenet_v3(arguments.seconds),
    }
    machine = environment()
    if arguments.json:
        print(json.dumps({"environment": machine.model_dump(), **found}, indent=2))
        return
    for name, each in found.items():
        print(f"{name}\n")
        show(each)
    print(f"\n{machine.cpu}, ONNX Runtime {machine.engines['ONNX Runtime']}, one thread, Python {machine.python}")


if __name__ == "__main__":
    main()
