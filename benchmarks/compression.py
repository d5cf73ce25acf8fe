"""What compression costs and gains: `EDGEKD_DATA=… python benchmarks/compression.py --part prune,qad,rules [--json]`.

A CIFAR ResNet teaches each network, as in distillation.py, whose finished trainings are reused where the options and
--out are the same; then, in every seed anew:

  prune  pruned to half of its MACs and recovered: accuracy and latency beside the full student, beside torch-pruning's
         plain recipe at the same MACs with the same recovery, and beside a narrower network trained from the beginning
  qad    int8, without training and quantization-aware distilled, beside the student in float
  rules  every prune.importance with every prune.shares, in --steps, on the validation split
  reach  the smallest fraction of the MACs that networks can be pruned to; trains nothing and needs no data

Accuracies are those of the exported files in ONNX Runtime, of the last epoch, never of a best one; latencies are
measured in turns with the full student's, one thread. The figures with a goal stand in a table at the end.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import _prune
import _qad
import _reach
import _rules
from _figures import table
from _students import NETWORKS, Part
from distillation import add_training, find_data

from edgekd.bench.environment import environment

PARTS: dict[str, Callable[[argparse.Namespace], Part]] = {
    "prune": _prune.measure,
    "qad": _qad.measure,
    "rules": _rules.measure,
    "reach": _reach.measure,
}


def _names(allowed: list[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in allowed]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}; allowed: {', '.join(allowed)}")
        return names

    return parse


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", type=_names(list(PARTS)), default=["prune", "qad"], help="comma-separated")
    parser.add_argument(
        "--networks",
        type=_names(list(NETWORKS)),
        default=["MobileNetV2", "ShuffleNetV2 x1.0"],
        help=f"comma-separated, of {', '.join(NETWORKS)}",
    )
    parser.add_argument("--seeds", type=int, default=3)
    add_training(parser)
    parser.add_argument("--recovery", type=int, default=3, help="epochs after pruning")
    parser.add_argument("--qad-epochs", type=int, help="default: as in a recipe that does not set them")
    parser.add_argument("--rules", type=lambda text: text.split(","), help="only these, as importance/shares")
    parser.add_argument("--steps", type=lambda text: [int(each) for each in text.split(",")], default=[1])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-distillation"))
    parser.add_argument("--json", action="store_true")
    return parser


def main() -> None:
    parser = _options()
    arguments = parser.parse_args()
    if arguments.part != ["reach"]:
        find_data(parser, arguments)
    found = {name: PARTS[name](arguments) for name in arguments.part}
    figures = [figure for part in found.values() for figure in part.figures]
    machine = environment()
    if arguments.json:
        rows = {name: {"rows": part.rows, "ran": part.note} for name, part in found.items()}
        goals = [figure.to_json() for figure in figures]
        print(json.dumps({"environment": machine.model_dump(), "parts": rows, "figures": goals}, indent=2))
        return
    for part in found.values():
        print(f"{part.table}\n\n{part.note}.\n")
    if figures:
        print(table(figures))
    print(f"\n{machine.cpu}, {machine.cores} cores, ONNX Runtime {machine.engines['ONNX Runtime']}, {machine.python}")


if __name__ == "__main__":
    main()
