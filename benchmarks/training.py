"""How fast edgekd trains, as ratios on this machine: `python benchmarks/training.py [--only A,B] [--quick] [--json]`.

    A  a step of fit() and of a plain loop                   E  an epoch's time for more images
    B  the same job in torchdistill and in timm              F  memory for a folder of 100,000 files
    C  the data's share of a step                            G  on a GPU, where there is one
    D  a bf16 teacher's answers (EDGEKD_DATA: see _training_limits.py)
    H  compiled and uncompiled networks

Each variant is a process of its own; they take turns of one epoch, several rounds, and the median of the rounds'
ratios counts. The images are synthetic but for part D. Nothing else should run meanwhile: under contention two
threads collapse. `--torchdistill PYTHON` names an interpreter with torch, torchvision and torchdistill 1.1.5. `--quick`
only shows that everything runs: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import _training_limits as limits
import _training_speed as speed
import torch
from _figures import Figure, table
from _training_speed import Sizes

from edgekd.bench.environment import environment

PACKAGES = ("torch", "torchvision", "timm", "pillow")


def machine(threads: int) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    versions = {package: metadata.version(package) for package in PACKAGES}
    return {**environment().model_dump(), "threads": threads, "gpu": gpu, **versions}


def parts(options: argparse.Namespace, sizes: Sizes, folder: Path) -> dict[str, Callable[[], list[Figure]]]:
    return {
        "A": lambda: speed.step_cost(sizes, folder),
        "B": lambda: speed.peers(sizes, folder, options.torchdistill),
        "C": lambda: speed.data_share(sizes, folder),
        "D": lambda: limits.bf16_teacher(sizes, folder),
        "E": lambda: speed.linearity(sizes, folder),
        "F": lambda: limits.memory(sizes, folder),
        "G": lambda: limits.gpu(sizes, folder, quick=options.quick),
        "H": lambda: speed.compiled(sizes, folder),
    }


def sizes_of(options: argparse.Namespace) -> Sizes:
    rounds = options.rounds or (1 if options.quick else 7)
    if options.quick:
        return Sizes(rounds, 128, 32, 300, 2, options.threads, options.teacher)
    return Sizes(rounds, 4096, 128, 100_000, None, options.threads, options.teacher)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="A,B,C,D,E,F,G,H", help="parts, e.g. A,B")
    parser.add_argument("--rounds", type=int, help="default: 7, with --quick 1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--teacher", default="cifar/resnet9x0.5", help="of parts A, B, C and E")
    parser.add_argument("--torchdistill", metavar="PYTHON", help="an interpreter that has torchdistill")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args()
    options.only = [name.strip().upper() for name in options.only.split(",")]
    if unknown := [name for name in options.only if name not in "ABCDEFGH"]:
        parser.error(f"no such part: {', '.join(unknown)}")
    return options


def main() -> None:
    options = arguments()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, measure in parts(options, sizes_of(options), Path(folder)).items():
            if name in options.only:
                print(f"part {name} ...", file=sys.stderr, flush=True)
                figures += measure()
    record = machine(options.threads)
    if options.json:
        print(
            json.dumps({"machine": record, "quick": options.quick, "figures": [f.to_json() for f in figures]}, indent=2)
        )
        return
    print(table(figures))
    gpu = f", {record['gpu']}" if record["gpu"] else ""
    versions = ", ".join(f"{package} {record[package]}" for package in PACKAGES)
    print(
        f"\n{record['cpu']}, {record['cores']} cores, {record['threads']} threads{gpu}; "
        f"Python {record['python']}, {versions}"
    )
    if options.quick:
        print("quick: the sizes are too small for meaningful figures")


if __name__ == "__main__":
    main()
