"""What training through int8 quantizers gives, and whether its files answer as it does.

    EDGEKD_DATA=… python benchmarks/qad.py [--seeds 3] [--images 5000] [--epochs 10] [--json]

A CIFAR ResNet-14 teaches MobileNetV2 x0.35 on Fashion-MNIST of 16x16 pixels; the student is calibrated, and trained
from there by each of SCHEDULES. On the test split: top-1, the divergence from the teacher that the training minimises
(T = 4), which varies less than answers do, and the share of PyTorch's answers that the graph `int8` as written and
`int8-asym` by ONNX Runtime's kernels give. Finished trainings are reused.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from torch import nn

from edgekd import schemes
from edgekd.bench.environment import environment
from edgekd.data.dataset import Dataset
from edgekd.data.loader import Batch
from edgekd.export.int8 import with_constant_scales
from edgekd.export.onnx import graph_of
from edgekd.export.qdq import with_float_weights, with_unsigned_activations, without_fused_branches
from edgekd.models import checkpoint as checkpoints
from edgekd.quantization.placement import activation_quantizers
from edgekd.recipe.load import from_mapping
from edgekd.runs import Run
from edgekd.runtime.backends.onnxruntime import OrtSession
from edgekd.stages import data as data_stage
from edgekd.stages import train as train_stage
from edgekd.stages.distill import Continuation
from edgekd.stages.quantize import quantize
from edgekd.store.store import Store
from edgekd.training.train import evaluation_loader

SCHEDULES: dict[str, dict[str, Any]] = {
    "default": {},
    "observed": {"scales": "observed"},
    "learned": {"scales": "learned"},
    "rate x10": {"learning_rate": 0.01},
    "observed, rate x10": {"scales": "observed", "learning_rate": 0.01},
}
TEMPERATURE = 4.0
Floats = npt.NDArray[np.float32]
Scores = dict[str, float]


def recipe(seed: int, arguments: argparse.Namespace, **quantize: Any) -> dict[str, Any]:
    data = {"source": "fashion-mnist", "root": str(arguments.data), "image_size": 16, "limit": arguments.images}
    return {
        "name": "qad",
        "data": {**data, "augment": {"padding": 1, "flip": True}},
        "teacher": {"model": "cifar/resnet14", "train": {"epochs": 8, "threads": 1}},
        "student": {"model": "torchvision/mobilenet_v2", "arguments": {"width_mult": 0.35}, "stem": "small"},
        "distill": {"epochs": arguments.epochs, "learning_rate": 0.1, "threads": 1, "seed": seed},
        "quantize": {**quantize, "seed": seed},
    }


class Judge:
    """Scores networks on the test split, by labels and by the teacher's logits."""

    def __init__(self, data: Dataset, teacher: nn.Module) -> None:
        self._shape = data.details.preprocessing.shape
        self._batches: list[Batch] = list(evaluation_loader(data, "test").epoch(0))
        self._labels = torch.cat([batch.targets for batch in self._batches]).numpy()
        self._teacher = torch.from_numpy(self._logits(teacher))

    def score(self, network: nn.Module) -> Scores:
        own = self._logits(network)
        soft, wanted = (torch.log_softmax(each / TEMPERATURE, 1) for each in (torch.from_numpy(own), self._teacher))
        scores = {"top-1 %": self._right(own)}
        divergence = F.kl_div(soft, wanted, log_target=True, reduction="batchmean")
        scores["divergence"] = TEMPERATURE**2 * float(divergence)
        if activation_quantizers(network):
            pairs = graph_of(with_constant_scales(network), self._shape, 17)
            symmetric, asymmetric = with_float_weights(without_fused_branches(pairs)), with_unsigned_activations(pairs)
            for name, graph in (("int8", symmetric), ("int8-asym", asymmetric)):
                found = self._computed(graph, as_written=name == "int8")
                scores[f"{name} top-1 %"] = self._right(found)
                scores[f"{name} equal %"] = 100 * float((found.argmax(1) == own.argmax(1)).mean())
        return scores

    def _right(self, logits: Floats) -> float:
        return 100 * float((logits.argmax(1) == self._labels).mean())

    @torch.no_grad()
    def _logits(self, network: nn.Module) -> Floats:
        return np.concatenate([network(batch.images).numpy() for batch in self._batches])

    def _computed(self, graph: onnx.ModelProto, *, as_written: bool) -> Floats:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            onnx.save(graph, file)
            session = OrtSession(file, threads=1, as_written=as_written)
            return np.concatenate([session.bind(batch.images.contiguous().numpy())() for batch in self._batches])


def measure(seed: int, arguments: argparse.Namespace) -> dict[str, Scores]:
    """The scores of the float student, of the calibrated one, and by schedule."""
    store, scores = Store(arguments.out), dict[str, Scores]()
    for name, settings in SCHEDULES.items():
        run = Run(from_mapping(recipe(seed, arguments, **settings)).settings, store)
        data = data_stage.data(run)
        teacher = train_stage.teacher(run, data)
        assert teacher is not None
        judge = Judge(data, checkpoints.load(teacher))
        student = schemes.distill(run, teacher, data).student
        made = quantize(run, student, Continuation(teacher, data, run.recipe.distill.objective))
        assert made is not None
        if not scores:
            scores["float"] = judge.score(checkpoints.load(student))
            scores["calibrated"] = judge.score(checkpoints.load(made.calibrated))
        scores[name] = judge.score(checkpoints.load(made.trained))
    return scores


def table(seeds: list[dict[str, Scores]]) -> str:
    names = list(seeds[0]["calibrated"])
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for row in seeds[0]:
        cells = [_spread([scores[row][name] for scores in seeds]) if name in seeds[0][row] else "" for name in names]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{values[0]:.4g}" if len(values) == 1 else f"{mean(values):.4g} ± {stdev(values):.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000, help="training images; classes in proportion")
    parser.add_argument("--epochs", type=int, default=10, help="of the distillation")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-qad"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if "EDGEKD_DATA" not in os.environ:
        parser.error("EDGEKD_DATA is not set: it names the folder with FashionMNIST")
    arguments.data = Path(os.environ["EDGEKD_DATA"]).absolute()
    torch.set_num_threads(1)
    seeds = [measure(seed, arguments) for seed in range(arguments.seeds)]
    machine = environment()
    if arguments.json:
        print(json.dumps({"environment": machine.model_dump(), "seeds": seeds}, indent=2))
        return
    print(table(seeds))
    print(f"\n{arguments.seeds} seeds, mean ± standard deviation; {machine.cpu}, Python {machine.python}")


if __name__ == "__main__":
    main()
