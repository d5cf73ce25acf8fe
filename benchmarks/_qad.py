"""The float student beside its int8 graphs, without training (PTQ) and quantization-aware distilled (QAD)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from statistics import mean

from _figures import Figure, at_most
from _students import NETWORKS, Part, accuracies, exported, spread, trained, what_ran

from edgekd.stages.distill import STUDENT
from edgekd.stages.quantize import PTQ, QUANTIZED, quantize

GOALS = {"MobileNetV2": 0.1, "ShuffleNetV2 x1.0": 0.1, "MobileNetV3-small": 0.7}
FLOAT = f"{STUDENT.name}-fp32"
SHOWN = {
    FLOAT: "student, fp32",
    f"{PTQ.name}-int8": "PTQ, int8",
    f"{QUANTIZED.name}-int8": "QAD, int8",
    f"{QUANTIZED.name}-int8-asym": "QAD, int8-asym",
}


def measure(arguments: argparse.Namespace) -> Part:
    rows = {name: [_of_seed(name, seed, arguments) for seed in range(arguments.seeds)] for name in arguments.networks}
    figures = [figure for name, seeds in rows.items() for figure in _figures(name, seeds)]
    return Part(
        rows, _table(rows), figures, f"{what_ran(arguments)} of the test split; QAD as a recipe has it by default"
    )


def _of_seed(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Percent of the test split, by file."""
    section = {} if arguments.qad_epochs is None else {"epochs": arguments.qad_epochs}
    variants = {"variants": ["fp32", "int8", "int8-asym"]}
    made = trained(NETWORKS[name], seed, arguments, quantize=section, export=variants)
    quantized = quantize(made.run, made.student, made.continuation)
    graphs = exported(made, {STUDENT: made.student}, quantized)
    return {str(model): value for model, value in accuracies(made, graphs).items()}


def _figures(name: str, seeds: Sequence[Mapping[str, float]]) -> list[Figure]:
    return [
        at_most(
            name,
            f"points lost by {SHOWN[file]}",
            mean(seed[FLOAT] - seed[file] for seed in seeds),
            GOALS.get(name, 0.1),
            "points",
        )
        for file in seeds[0]
        if file.startswith(QUANTIZED.name)
    ]


def _table(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    lines = ["| | " + " | ".join(SHOWN.values()) + " |", "|---|" + "---|" * len(SHOWN)]
    for name, seeds in rows.items():
        cells = [f"{spread([seed[file] for seed in seeds])} %" for file in SHOWN]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
