"""Which channels go, and how many of each layer: every importance with every kind of shares, by validation images."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import product
from statistics import mean
from typing import Any, get_args

from _prune import KEPT, MULTIPLE
from _students import FIXED, NETWORKS, Part, exported, latencies, spread, trained, what_ran

from edgekd.errors import ModelError
from edgekd.export.model_id import ModelId
from edgekd.recipe.settings import PruneSettings
from edgekd.stages.distill import STUDENT
from edgekd.stages.prune import RECOVERED, prune

Row = dict[str, float]


def _allowed(field: str) -> tuple[str, ...]:
    return get_args(PruneSettings.model_fields[field].annotation)


def measure(arguments: argparse.Namespace) -> Part:
    rules = [
        {"importance": importance, "shares": shares}
        for importance, shares in product(_allowed("importance"), _allowed("shares"))
        if arguments.rules is None or f"{importance}/{shares}" in arguments.rules
    ]
    rules = [{**rule, "steps": steps} for rule in rules for steps in arguments.steps]
    rows: dict[str, list[tuple[dict[str, Any], list[Row] | str]]] = {}
    for name in arguments.networks:
        rows[name] = [(rule, _of_rule(name, rule, arguments)) for rule in rules]
    ran = what_ran(arguments).split(". ")[0]
    return Part(rows, _table(rows), note=f"{ran}. Top-1 on the validation split after {arguments.recovery} epochs")


def _of_rule(name: str, rule: Mapping[str, Any], arguments: argparse.Namespace) -> list[Row] | str:
    """By seed, or why the rule does not work on this network."""
    try:
        return [_of_seed(name, seed, rule, arguments) for seed in range(arguments.seeds)]
    except ModelError as error:
        return str(error)


def _of_seed(name: str, seed: int, rule: Mapping[str, Any], arguments: argparse.Namespace) -> Row:
    section = {"target": {"macs": KEPT}, "multiple": MULTIPLE, "epochs": arguments.recovery, **FIXED, **rule}
    made = trained(NETWORKS[name], seed, arguments, prune=section, export={"variants": ["fp32"]})
    found = prune(made.run, made.student, made.continuation)
    assert found is not None
    graphs = exported(made, {STUDENT: made.student, RECOVERED: found.recovered})
    files = {role.name: graphs.models[ModelId(role.name, "fp32")].graph for role in (STUDENT, RECOVERED)}
    before, after = made.student.metrics, found.recovered.metrics
    return {
        "lost": 100.0 * (before["validation_accuracy"] - after["validation_accuracy"]),
        "accuracy": 100.0 * after["validation_accuracy"],
        "macs": after["macs"] / before["macs"],
        "latency": latencies(files)[RECOVERED.name],
    }


def _table(rows: Mapping[str, Sequence[tuple[Mapping[str, Any], list[Row] | str]]]) -> str:
    lines = [
        "| | importance | shares | steps | top-1 | points lost | MACs | latency |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, tried in rows.items():
        for rule, seeds in tried:
            begin = f"| {name} | {rule['importance']} | {rule['shares']} | {rule['steps']} |"
            if isinstance(seeds, str):
                lines.append(f"{begin} refused: {seeds} | | | |")
                continue
            accuracy, lost, macs, latency = (
                [seed[key] for seed in seeds] for key in ("accuracy", "lost", "macs", "latency")
            )
            lines.append(f"{begin} {spread(accuracy)} % | {spread(lost)} | {mean(macs):.2f} | {spread(latency)} |")
    return "\n".join(lines)
