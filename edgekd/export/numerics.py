"""Compares an exported graph with what it was converted from, on real images, in the reference backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

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
    """The outputs that a graph is compared with: `logits` (N, C) for `inputs` (N, C, H, W), computed by `reference`.

    With `multilabel` each logit is a decision of its own.
    """

    inputs: Floats
    logits: Floats
    reference: str
    multilabel: bool = False


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
    Top-1 answers are compared on images whose expected answer exceeds the second by more than the accepted difference:
    on the others, the near-ties, an accepted difference may decide. Where all are near-ties, all are compared. With
    several labels per image all classes of more than one half are compared, and a near-tie is a logit near 0.

    Args:
        file: the graph.
        expected: the outputs to compare with.
        tolerance: the largest accepted deviation.
        heads: number of classes of each additional head, whose logits come last; answers agree where every head agrees.
        as_written: whether the graph is computed as it is written; see Backend.

    Returns:
        The differences, the agreement without the near-ties and with them, the number of images and of near-ties, and
        the tolerance, for the manifest.

    Raises:
        ExportError: a difference or the top-1 agreement is outside the tolerance.
    """
    with open_reference(file, as_written=as_written) as session:
        found = session.bind(expected.inputs)()
    logits = expected.logits
    if found.shape != logits.shape:
        raise ExportError(f"{file.name} has another output shape", found=found.shape, allowed=logits.shape)
    difference = np.abs(found.astype(np.float64) - logits.astype(np.float64))
    scale = max(float(np.abs(logits).max()), 1e-12)
    answers = _decisions if expected.multilabel else partial(_top_answers, heads=heads)
    same, margins = answers(found, logits)
    clear = margins > tolerance.difference * scale
    if not clear.any():  # nothing could be judged apart
        clear[:] = True
    measured = {
        "max_difference": float(difference.max()) / scale,
        "mean_difference": float(difference.mean()) / scale,
        "agreement": float(same[clear].mean()),
        "agreement_of_all": float(same.mean()),
        "largest_logit": scale,
    }
    if not (measured["max_difference"] <= tolerance.difference and measured["agreement"] >= tolerance.agreement):
        raise _outside(measured, expected, tolerance, clear)
    return {
        **numbers(measured, digits=9),
        "near_ties": int((~clear).sum()),
        "reference": expected.reference,
        "images": len(expected.inputs),
        "tolerance": tolerance.model_dump(),
    }


def _outside(measured: Json, expected: Expected, tolerance: Tolerance, clear: npt.NDArray[np.bool_]) -> ExportError:
    return ExportError(
        f"the graph does not compute what {expected.reference} computes",
        found=f"a difference of {measured['max_difference']:.3g} of the largest logit, agreement "
        f"{measured['agreement']:.2%} on the {int(clear.sum())} of {len(clear)} images without a near-tie",
        allowed=f"at most {tolerance.difference:.3g}, and at least {tolerance.agreement:.2%}",
        hint="raise export.tolerance only if you know why they differ",
    )


def _top_answers(found: Floats, logits: Floats, *, heads: Sequence[int]) -> tuple[npt.NDArray[np.bool_], Floats]:
    """(N,) whether every head's answers are the same, and the smallest margin of the expected ones."""
    parts = list(zip(_parts(found, heads), _parts(logits, heads), strict=True))
    same = np.all([mine.argmax(1) == theirs.argmax(1) for mine, theirs in parts], axis=0)
    return same, np.min([_margin(theirs) for _, theirs in parts], axis=0)


def _decisions(found: Floats, logits: Floats) -> tuple[npt.NDArray[np.bool_], Floats]:
    """(N,) whether the same classes are answered with more than one half, and the smallest margin of the expected."""
    same: npt.NDArray[np.bool_] = ((found > 0) == (logits > 0)).all(1)
    return same, np.abs(logits).min(1)


def _margin(logits: Floats) -> Floats:
    """(N,): by how much the largest logit exceeds the second; infinite for a single class."""
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf, np.float32)
    ordered = np.sort(logits, axis=1)
    margin: Floats = ordered[:, -1] - ordered[:, -2]
    return margin


def _parts(logits: Floats, heads: Sequence[int]) -> list[Floats]:
    """Each head's columns, the main one's first."""
    ends = np.cumsum([logits.shape[1] - sum(heads), *heads])
    return np.split(logits, ends[:-1], axis=1)


def real_inputs(data: Dataset, count: int = _IMAGES) -> Floats:
    """The first `count` validation images as network inputs (N, C, H, W)."""
    reader = open_reader(data, "validation")
    return reader.inputs(reader.first(count))
