"""Which channels go, and how many of each layer: every importance with every kind of shares.

Judged by training images that the trainings did not have, since these had too few to spare many for their validation.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any, get_args

import numpy as np
from _prune import KEPT, MULTIPLE
from _students import FIXED, NETWORKS, Part, Trained, exported, images_of, latencies, spread, trained, what_ran

from edgekd.data.reader import Reader, Rows, open_reader
from edgekd.errors import ModelError
from edgekd.export.model_id import ModelId
from edgekd.recipe.settings import PruneSettings
from edgekd.runtime.backends.onnxruntime import OrtSession
from edgekd.stages.distill import STUDENT
from edgekd.stages.prune import RECOVERED, prune

_JUDGING = 5000

Row = dict[str, float]


def _allowed(field: str) -> tuple[str, ...]:
    return tuple(name for name in get_args(PruneSettings.model_fields[field].annotation) if name != "auto")


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
    ran = f"{what_ran(arguments)} of {_JUDGING:,} other training images after {arguments.recovery} epochs of recovery"
    return Part(rows, _table(rows), note=ran)


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
    reader, unseen = _unseen(made, seed, arguments)
    before, after = (_accuracy(file, reader, unseen) for file in files.values())
    return {
        "lost": before - after,
        "accuracy": after,
        "images": len(unseen),
        "macs": found.recovered.metrics["macs"] / made.student.metrics["macs"],
        "latency": latencies(files)[RECOVERED.name],
    }


def _unseen(made: Trained, seed: int, arguments: argparse.Namespace) -> tuple[Reader, Rows]:
    """Training images of a larger part of the set that no training had, told apart by their pixels."""
    larger = argparse.Namespace(**{**vars(arguments), "images": 2 * arguments.images + 2 * _JUDGING})
    reader = replace(
        open_reader(images_of(made.run.store, seed, larger), "train"), preprocessing=made.data.details.preprocessing
    )
    seen = {digest for split in ("train", "validation") for digest in _digests(open_reader(made.data, split))}
    unseen = [row for row, digest in enumerate(_digests(reader)) if digest not in seen]
    return reader, np.array(unseen[:: max(1, len(unseen) // _JUDGING)][:_JUDGING])


def _digests(reader: Reader) -> list[bytes]:
    return [sha256(reader.pixels(np.array([row])).tobytes()).digest() for row in range(len(reader))]


def _accuracy(file: Path, reader: Reader, rows: Rows) -> float:
    """Percent of these images, of a file in ONNX Runtime."""
    session = OrtSession(file)
    right = [session.bind(images)().argmax(1) == labels for images, labels in reader.batches(rows)]
    return 100.0 * float(np.concatenate(right).mean())


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
