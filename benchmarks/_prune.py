"""Pruned to half of the MACs and recovered, beside torch-pruning's plain recipe and a narrower network."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from _figures import Figure, at_least, at_most, not_measured
from _students import FIXED, NETWORKS, Part, accuracies, exported, latencies, spread, trained, what_ran
from _torch_pruning import pruned_by_torch_pruning

from edgekd.errors import ModelError
from edgekd.export.model_id import ModelId
from edgekd.models.checkpoint import Checkpoint
from edgekd.runs import Role, Run
from edgekd.stages.distill import STUDENT, Guidance, distilled, role_named
from edgekd.stages.prune import RECOVER, RECOVERED, prune, recovered

KEPT, MULTIPLE = 0.5, 8
# Trained narrower from the beginning, with the same teacher, for all epochs that the pruned one has in its life.
NARROWER: Mapping[str, Mapping[str, Any]] = {
    "ShuffleNetV2 x1.0": {"model": "torchvision/shufflenet_v2_x0_5", "stem": "small"},
}
THEIRS = role_named("torchpruning", "torch-pruning, recovered")
NARROW = role_named("narrower", "ShuffleNetV2 x0.5, all epochs")
SHOWN = {role.name: role.title for role in (STUDENT, RECOVERED, THEIRS, NARROW)}

Row = dict[str, float]


def measure(arguments: argparse.Namespace) -> Part:
    rows: dict[str, list[dict[str, Row]]] = {}
    failed: dict[str, str] = {}
    for name in arguments.networks:
        rows[name] = [_of_seed(name, seed, arguments, failed) for seed in range(arguments.seeds)]
    found = [figure for name, seeds in rows.items() for figure in _figures(name, seeds, failed)]
    return Part(
        rows,
        _table(rows, failed),
        found,
        f"{what_ran(arguments)} of the test split after {arguments.recovery} epochs of recovery",
    )


def _of_seed(name: str, seed: int, arguments: argparse.Namespace, failed: dict[str, str]) -> dict[str, Row]:
    """Accuracy in percent, and fractions of the full student's MACs and latency, by network."""
    section = {"target": {"macs": KEPT}, "multiple": MULTIPLE, "epochs": arguments.recovery, **FIXED}
    made = trained(NETWORKS[name], seed, arguments, prune=section, export={"variants": ["fp32"]})
    ours = prune(made.run, made.student, made.continuation)
    settings = made.run.recipe.prune
    assert ours is not None and settings is not None
    networks: dict[Role, Checkpoint] = {STUDENT: made.student, RECOVERED: ours.recovered}
    try:
        theirs = pruned_by_torch_pruning(made.run, made.student, KEPT, MULTIPLE)
        networks[THEIRS] = recovered(made.run, theirs, settings, made.continuation, RECOVER)
    except ModelError as error:
        failed[name] = str(error)
    if name in NARROWER:
        networks[NARROW] = _narrower(made.run, NARROWER[name], made.continuation.teacher, made.data, arguments)
    graphs = exported(made, networks)
    scores = accuracies(made, graphs)
    times = latencies({role.name: graphs.models[ModelId(role.name, "fp32")].graph for role in networks})
    whole = made.student.metrics["macs"]
    return {
        role.name: {
            "accuracy": scores[ModelId(role.name, "fp32")],
            "macs": network.metrics["macs"] / whole,
            "latency": times[role.name],
        }
        for role, network in networks.items()
    }


def _narrower(
    run: Run, model: Mapping[str, Any], teacher: Checkpoint, data: Any, arguments: argparse.Namespace
) -> Checkpoint:
    settings = run.recipe.distill.model_copy(update={"epochs": arguments.epochs + arguments.recovery})
    student = type(run.recipe.student).model_validate(dict(model))
    return distilled(run, student, Guidance(teacher, data, settings.objective), settings)


def _figures(name: str, seeds: Sequence[Mapping[str, Row]], failed: Mapping[str, str]) -> list[Figure]:
    ours = RECOVERED.name
    lost = _mean_difference(seeds, STUDENT.name, ours, "accuracy")
    faster = 100.0 * (1.0 - mean(seed[ours]["latency"] for seed in seeds))
    found = [
        at_most(name, "points lost by pruning", lost, 1.0, "points"),
        at_least(name, "latency falls by", faster, 30.0, "%"),
    ]
    if name in failed:
        found.append(not_measured(name, "torch-pruning's plain recipe", failed[name]))
    else:
        ahead = _mean_difference(seeds, ours, THEIRS.name, "accuracy")
        quicker = 100.0 * _mean_difference(seeds, THEIRS.name, ours, "latency")
        found.append(at_least(name, "ahead of torch-pruning's plain recipe", ahead, 0.0, "points"))
        found.append(at_least(name, "latency falls further than its", quicker, 0.0, "% of the student's"))
    if name in NARROWER:
        ahead = _mean_difference(seeds, ours, NARROW.name, "accuracy")
        found.append(at_least(name, f"ahead of {NARROW.title}", ahead, 0.0, "points"))
    return found


def _mean_difference(seeds: Sequence[Mapping[str, Row]], more: str, less: str, key: str) -> float:
    return mean(seed[more][key] - seed[less][key] for seed in seeds)


def _table(rows: Mapping[str, Sequence[Mapping[str, Row]]], failed: Mapping[str, str]) -> str:
    lines = ["| | | top-1 | MACs | latency |", "|---|---|---|---|---|"]
    for name, seeds in rows.items():
        for role in seeds[0]:
            accuracy, macs, latency = ([seed[role][key] for seed in seeds] for key in ("accuracy", "macs", "latency"))
            lines.append(f"| {name} | {SHOWN[role]} | {spread(accuracy)} % | {mean(macs):.2f} | {spread(latency)} |")
        if name in failed:
            lines.append(f"| {name} | {THEIRS.title} | fails: {failed[name]} | | |")
    return "\n".join(lines)
