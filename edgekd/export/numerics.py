"""Compares an exported graph with what it was converted from, on real images, in the reference backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.data.dataset import Dataset
from edgekd.data.reader import open_reader
from edgekd.errors import ExportError
from edgekd.export.opening import open_first
from edgekd.recipe.settings import Tolerance
from edgekd.runtime.preprocess import Floats
from edgekd.store.artifacts import Json, numbers

_IMAGES = 256
_OF_A_STEP = 0.01


@dataclass(frozen=True)
class Expected:
    """The outputs that a graph is compared with: `logits` (N, C) for `inputs` (N, C, H, W), computed by `reference`.

    With `multilabel` each logit is a decision of its own. `again` computes the logits of other inputs: it is for a
    quantized reference, which may be unstable, see compare().
    """

    inputs: Floats
    logits: Floats
    reference: str
    multilabel: bool = False
    again: Callable[[Floats], Floats] | None = None


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

    A quantized network may be unstable: where a value lies between two steps, the last bit of a sum decides, and some
    networks enlarge that, so that no two engines agree on them. A graph that differs by more than the tolerance is
    therefore also accepted where its reference moves at least half as far once its inputs change by a hundredth of a
    step. Twice that movement is the accepted difference then.

    Args:
        file: the graph.
        expected: the outputs to compare with.
        tolerance: the largest accepted deviation.
        heads: number of classes of each additional head, whose logits come last; answers agree where every head agrees.
        as_written: whether the graph is computed as it is written; see Backend.

    Returns:
        The differences, the agreement without the near-ties and with them, the number of images and of near-ties, the
        tolerance, and by how much an unstable reference moves, for the manifest.

    Raises:
        ExportError: a difference or the top-1 agreement is outside the tolerance, or the engine crashes on the graph.
    """
    with open_first(file, as_written=as_written) as session:
        found = session.bind(expected.inputs)()
    logits = expected.logits
    if found.shape != logits.shape:
        raise ExportError(f"{file.name} has another output shape", found=found.shape, allowed=logits.shape)
    return _judged(found, expected, tolerance, heads)


def _judged(found: Floats, expected: Expected, tolerance: Tolerance, heads: Sequence[int]) -> Json:
    """What compare() returns for the outputs of a graph, and raises."""
    logits = expected.logits
    scale = max(float(np.abs(logits).max()), 1e-12)
    largest, mean = _difference(found, logits, scale)
    answers = _decisions if expected.multilabel else partial(_top_answers, heads=heads)
    same, margins = answers(found, logits)
    accepted, clear, moved = tolerance.difference, margins > tolerance.difference * scale, None
    if not clear.any():  # nothing could be judged apart
        clear[:] = True
    if not (largest <= accepted and same[clear].mean() >= tolerance.agreement) and expected.again is not None:
        moved = _moved(expected, scale)
        if largest <= 2 * moved[0] and mean <= 2 * moved[1]:
            accepted = max(accepted, 2 * moved[0])
            clear = margins > accepted * scale
    # Where all answers of an unstable network are near-ties, there is nothing to compare: the file's accuracy shows.
    least = tolerance.agreement if clear.any() else 0.0
    agreement = float(same[clear].mean()) if clear.any() else float(same.mean())
    if not (largest <= accepted and agreement >= least):
        raise _outside(expected, tolerance, largest, agreement, clear)
    measured = {
        "max_difference": largest,
        "mean_difference": mean,
        "agreement": agreement,
        "agreement_of_all": float(same.mean()),
        "largest_logit": scale,
    }
    return {
        **numbers(measured, digits=9),
        "near_ties": int((~clear).sum()),
        "reference": expected.reference,
        "images": len(expected.inputs),
        "tolerance": {"difference": accepted, "agreement": least},
        "unstable": None if moved is None else moved[0],
    }


def _difference(found: Floats, logits: Floats, scale: float) -> tuple[float, float]:
    """The largest and the mean one, relative to `scale`."""
    difference = np.abs(found.astype(np.float64) - logits.astype(np.float64))
    return float(difference.max()) / scale, float(difference.mean()) / scale


def _moved(expected: Expected, scale: float) -> tuple[float, float]:
    """By how much the reference differs from itself for inputs that are off by a hundredth of an int8 step."""
    assert expected.again is not None
    step = np.float32(np.abs(expected.inputs).max() / 127)
    noise = np.random.default_rng(0).uniform(-_OF_A_STEP, _OF_A_STEP, expected.inputs.shape).astype(np.float32) * step
    return _difference(expected.again(expected.inputs + noise), expected.logits, scale)


def _outside(
    expected: Expected, tolerance: Tolerance, largest: float, agreement: float, clear: npt.NDArray[np.bool_]
) -> ExportError:
    judged = f"the {int(clear.sum())} of {len(clear)} images without a near-tie"
    return ExportError(
        f"the graph does not compute what {expected.reference} computes",
        found=f"a difference of {largest:.3g} of the largest logit, agreement {agreement:.2%} on {judged}",
        allowed=f"at most {tolerance.difference:.3g}, and at least {tolerance.agreement:.2%}",
        hint="if you know why they differ, and may, set both in export.tolerance, as {VARIANT: {difference: …, "
        "agreement: …}}",
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
