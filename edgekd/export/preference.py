"""Which engine should take which variant of a bundle: by measurement where there is one, else by rule."""

from __future__ import annotations

import platform
from collections.abc import Mapping

from edgekd import plugins
from edgekd.store.artifacts import Json

# What each engine computes fastest in, as a rule; only the order that was measured is more than that.
_BY_RULE = {
    "tensorrt": ("int8", "fp16", "fp32"),
    "openvino": ("int8", "fp32", "fp16"),
    "onnxruntime": ("fp32", "fp16"),
}
# Latencies this close are the same: which is ahead changes from run to run.
SAME = 1.05


def preferences(
    shipped: Mapping[str, str], scores: Mapping[str, Json], latencies: Mapping[str, float]
) -> dict[str, list[str]]:
    """For each engine the variants in the order in which it should take them; see BundleManifest.

    Args:
        shipped: the bundle's variants, each with the name of its model.
        scores: a model's row of the evaluation, by its name.
        latencies: milliseconds for the smallest batch measured on this machine in ONNX Runtime, by the model's name.
    """
    order = {engine: [name for name in names if name in shipped] for engine, names in _BY_RULE.items()}
    runs = [name for name in plugins.load("backend", "onnxruntime").VARIANTS if name in shipped]
    if all(shipped[name] in latencies for name in runs):
        return {**order, here(): _by_measurement(runs, shipped, scores, latencies)}
    return {**order, here(): runs}


def here() -> str:
    """What ONNX Runtime on this machine is called in an order."""
    return f"onnxruntime-{platform.machine()}"


def _by_measurement(
    variants: list[str], shipped: Mapping[str, str], scores: Mapping[str, Json], latencies: Mapping[str, float]
) -> list[str]:
    """Those as accurate as the best within its own 95 % interval first, the fastest in front; then by accuracy."""
    row = {name: scores[shipped[name]] for name in variants}
    best = max(row.values(), key=lambda each: float(each["accuracy"]))
    fastest = min(latencies[shipped[name]] for name in variants)

    def rank(name: str) -> tuple[bool, float, float]:
        worse = row[name]["interval"][1] < best["accuracy"]
        slower = latencies[shipped[name]] / fastest
        return worse, -row[name]["accuracy"] if worse else max(slower, SAME), -row[name]["accuracy"]

    return sorted(variants, key=rank)
