"""The demo over several seeds, as the table in the README: `python benchmarks/digits.py [--json]`.

Every seed trains its own teacher, baseline and student on the same split; finished runs are reused.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean
from typing import Any

import edgekd
from edgekd.bench.environment import environment

TITLES = {
    "teacher-fp32": "teacher",
    "baseline-fp32": "student, labels alone",
    "student-fp32": "student, distilled, fp32",
    "student-fp16": "student, distilled, fp16",
}


def run(seed: int, folder: Path) -> dict[str, dict[str, Any]]:
    """One row a model: accuracy, size, parameters, MACs, median latency at batch 1."""
    overrides = [f"teacher.train.seed={seed}", f"distill.seed={seed}"]
    result = edgekd.run("digits", folder / f"seed-{seed}", overrides)
    report = json.loads((result.folder / "report.json").read_text())
    latency = {r["model"]: r["latency_ms"]["p50"] for r in report["measurements"] if r["batch_size"] == 1}
    return {model["id"]: {**model, "p50_ms": latency[model["id"]]} for model in report["models"]}


def table(seeds: list[dict[str, dict[str, Any]]]) -> str:
    lines = [
        "| | accuracy, mean (range) | parameters | MACs | file | latency p50 |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in TITLES.items():
        rows = [models[name] for models in seeds]
        scores = [100 * row["accuracy"] for row in rows]
        lines.append(
            f"| {title} | {mean(scores):.1f} % ({min(scores):.1f} to {max(scores):.1f}) | {rows[0]['parameters']:,} "
            f"| {rows[0]['macs'] / 1e6:.1f} M | {rows[0]['size_bytes'] / 1e6:.2f} MB "
            f"| {mean(row['p50_ms'] for row in rows):.3f} ms |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-digits"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    start = time.perf_counter()
    seeds = [run(seed, arguments.out) for seed in range(arguments.seeds)]
    seconds = (time.perf_counter() - start) / len(seeds)
    if arguments.json:
        print(json.dumps({"environment": environment().model_dump(), "seeds": seeds}, indent=2))
        return
    machine = environment()
    print(table(seeds))
    print(
        f"\n{seeds[0]['teacher-fp32']['samples']} test pictures, {len(seeds)} seeds, {seconds:.0f} s a run; "
        f"{machine.cpu}, {machine.cores} cores, onnxruntime {machine.onnxruntime}, Python {machine.python}"
    )


if __name__ == "__main__":
    main()
