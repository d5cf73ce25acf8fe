"""The demo over several seeds, as the table in the README: `python benchmarks/digits.py [--json]`.

Every seed trains its own networks on the same split; finished runs are reused.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import edgekd
from edgekd.bench.environment import environment
from edgekd.units import size

TITLES = {
    "teacher-fp32": "teacher",
    "baseline-fp32": "baseline (labels only)",
    "student-fp32": "student, distilled",
    "pruned-fp32": "pruned and recovered, fp32",
    "pruned-fp16": "the same, fp16",
    "ptq-int8": "calibrated only, int8",
    "quantized-int8": "quantization-aware distilled, int8",
    "quantized-int8-asym": "the same for ONNX Runtime, int8-asym",
}


def run(seed: int, folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """One row per model: accuracy, size, parameters, MACs, p50 latency at batch size 1; and each engine's default."""
    overrides = [f"{section}.seed={seed}" for section in ("teacher.train", "distill", "prune", "quantize")]
    result = edgekd.run("digits", folder / f"seed-{seed}", overrides)
    report = json.loads((result.folder / "report.json").read_text())
    latency = {r["model"]: r["latency_ms"]["p50"] for r in report["measurements"] if r["batch_size"] == 1}
    return {model["id"]: {**model, "p50_ms": latency.get(model["id"])} for model in report["models"]}, result.decisions


def table(seeds: Sequence[dict[str, dict[str, Any]]]) -> str:
    lines = [
        "| | accuracy, mean (range) | parameters | MACs | file | latency p50 |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in TITLES.items():
        rows = [models[name] for models in seeds]
        scores = [100 * row["accuracy"] for row in rows]
        lines.append(
            f"| {title} | {mean(scores):.1f} % ({min(scores):.1f} to {max(scores):.1f}) | {rows[0]['parameters']:,} "
            f"| {rows[0]['macs'] / 1e6:.1f} M | {size(rows[0]['size_bytes'])} "
            f"| {_latency(rows)} |"
        )
    return "\n".join(lines)


def _latency(rows: list[dict[str, Any]]) -> str:
    """The mean latency; a dash for a graph that is meant for another engine."""
    found = [row["p50_ms"] for row in rows if row["p50_ms"] is not None]
    return f"{mean(found):.3f} ms" if found else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-digits"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    start = time.perf_counter()
    seeds, decisions = zip(*(run(seed, arguments.out) for seed in range(arguments.seeds)), strict=True)
    seconds = (time.perf_counter() - start) / len(seeds)
    if arguments.json:
        print(json.dumps({"environment": environment().model_dump(), "seeds": seeds, "defaults": decisions}, indent=2))
        return
    machine = environment()
    print(table(seeds), end="\n\n")
    for seed, found in enumerate(decisions):
        print("\n".join(f"Seed {seed}, {engine}: {reason}." for engine, reason in found.items()))
    print(
        f"\n{seeds[0]['teacher-fp32']['samples']} test images, {len(seeds)} seeds, {seconds:.0f} s per run; "
        f"{machine.cpu}, {machine.cores} cores, ONNX Runtime {machine.engines['ONNX Runtime']}, Python {machine.python}"
    )


if __name__ == "__main__":
    main()
