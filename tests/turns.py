"""Latencies in turns, given instead of measured."""

from __future__ import annotations

from collections.abc import Mapping

from edgekd.bench.turns import Turns


def given_turns(times: Mapping[str, float], *, spread: float = 0.01, **changes: object) -> Turns:
    """Variants with these milliseconds; ratios refer to the first, and `spread` is that of all others' ratios."""
    first = next(iter(times.values()))
    values = {
        "variants": tuple(times),
        "milliseconds": tuple(times.values()),
        "ratios": tuple(time / first for time in times.values()),
        "spread": (0.0, *(spread for _ in range(len(times) - 1))),
        "rounds": 15,
        "backend": "onnxruntime",
        "engine": "onnxruntime 1.31.1",
        "batch_size": 1,
        "threads": 2,
        "cpu": "AMD EPYC",
        "instruction_sets": ("avx2", "avx512_vnni"),
    }
    return Turns.model_validate({**values, **changes})
