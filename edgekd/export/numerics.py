"""Compares an exported graph with what it was converted from, on real images, in the reference backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.data.dataset import Dataset
from edgekd.data.reader import open_reader
from edgekd.errors import ExportError
from edgekd.recipe.settings import Tolerance
from edgekd.runtime.backends import open_reference
from edgekd.runtime.preprocess import Floats
from edgekd.store.artifacts import Json, numbers

_IMAGES = 256


@dataclass(frozen=True)
class Expected:
    """The outputs that a graph is compared with: `logits` (N, C) for `inputs` (N, 3, S, S), computed by `reference`."""

    inputs: Floats
    logits: Floats
    reference: str


def compare(
    file: Path,
    expected: Expected,
    tolerance: Tolerance,
    *,
    heads: Sequence[int] = (),
    as_written: bool = False,
) -> Json:
    """Run a graph in the reference backend and compare its outputs with the expected ones.

    Differences are relative to the largest expected logit, because an absolute bound depends on the logits' scale.

    Args:
        file: the graph.
        expected: the outputs to compare with.
        tolerance: the largest accepted deviation.
        heads: number of classes of each additional head, whose logits come last; answers agree where every head agrees.
        as_written: whether the graph is computed as it is written; see Backend.

    Returns:
        The differences, the agreement, the number of images and the tolerance, for the manifest.

    Raises:
        ExportError: a difference or the top-1 agreement is outside the tolerance.
    """
    with open_reference(file, as_written=as_written) as session:
        found = session.bind(expected.inputs)()
    logits, reference = expected.logits, expected.reference
    if found.shape != logits.shape:
        raise ExportError(f"{file.name} has another output shape", found=found.shape, allowed=logits.shape)
    difference = np.abs(found.astype(np.float64) - logits.astype(np.float64))
    scale = max(float(np.abs(logits).max()), 1e-12)
    same = [a.argmax(1) == b.argmax(1) for a, b in zip(_parts(found, heads), _parts(logits, heads), strict=True)]
    agreement = float(np.all(same, axis=0).mean())
    measured = {
        "max_difference": float(difference.max()) / scale,
        "mean_difference": float(difference.mean()) / scale,
        "agreement": agreement,
        "largest_logit": scale,
    }
    if not (measured["max_difference"] <= tolerance.difference and agreement >= tolerance.agreement):
        raise ExportError(
            f"{file.name} does not compute what {reference} computes",
            found=f"max difference {measured['max_difference']:.2e} of the largest logit, agreement {agreement:.2%}",
            allowed=f"at most {tolerance.difference:.0e} and at least {tolerance.agreement:.2%}",
            hint="raise export.tolerance only if you know why they differ",
        )
    return {
        **numbers(measured, digits=9),
        "reference": reference,
        "images": len(expected.inputs),
        "tolerance": tolerance.model_dump(),
    }


def _parts(logits: Floats, heads: Sequence[int]) -> list[Floats]:
    """Each head's columns, the main one's first."""
    ends = np.cumsum([logits.shape[1] - sum(heads), *heads])
    return np.split(logits, ends[:-1], axis=1)


def real_inputs(data: Dataset, count: int = _IMAGES) -> Floats:
    """The first `count` validation images as network inputs (N, 3, S, S)."""
    reader = open_reader(data, "validation")
    return reader.inputs(reader.first(count))
