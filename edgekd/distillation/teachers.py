"""Calibration of teachers, and warnings about teachers that students learn little from.

T* is the calibrated temperature of Guo et al., On Calibration of Modern Neural Networks (2017), section 4.2. The gap in
capacity is that of Mirzadeh et al., Improved Knowledge Distillation via Teacher Assistant (2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.data.dataset import Dataset
from edgekd.data.loader import Loader
from edgekd.distillation.method import method_named
from edgekd.distillation.objective_settings import on_logits
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import TermSettings
from edgekd.runtime import statistics
from edgekd.store.artifacts import Json
from edgekd.training.host import autocast, best_device, resolve_precision
from edgekd.training.train import evaluation_loader

LEAST, MOST = 0.05, 20.0
# Outputs count as one-hot if all other classes together have less probability than this, and as uniform above this
# share of the largest entropy. Both grow with the temperature, so that they bound a range of it.
_ONE_HOT, _UNIFORM = 0.01, 0.97
_COLDEST, _HOTTEST = 1e-2, 1e4
# A rule of thumb, as the paper has none: it is given as advice. Both must hold.
_TIMES_LARGER, _POINTS_AHEAD = 20, 0.15
# T* is known to some tenths on a validation split of usual size.
_CLEARLY = 1.25


@dataclass(frozen=True)
class Calibration:
    """How well a network's confidence agrees with its accuracy on a validation split.

    Attributes:
        ece: expected calibration error, a share.
        nll: negative log-likelihood in nats for one image, at temperature 1; `nll_calibrated`: at `temperature`.
        temperature: T*, which minimises it, between LEAST and MOST; None if it is at one of these ends, as for a
            network that makes no mistake: then T* is not known.
        soft_from, soft_to: between these temperatures outputs are neither nearly one-hot nor nearly uniform.
    """

    ece: float
    nll: float
    nll_calibrated: float
    temperature: float | None
    soft_from: float
    soft_to: float


def calibration_of(network: nn.Module, data: Dataset) -> Json:
    """A network's calibration on the validation split, as a teacher's metrics keep it.

    Args:
        network: moved to the best device and set to eval mode.
        data: whose validation split is used.

    Returns:
        Under "calibration", the fields of Calibration; nothing for images of several labels, whose probabilities are
        not those of one distribution.
    """
    if data.multilabel:
        return {}
    return {"calibration": asdict(calibrate(*_outputs(network, evaluation_loader(data, "validation"))))}


def calibrate(logits: Tensor, targets: Tensor) -> Calibration:
    """The calibration that these logits show, computed in double precision.

    Args:
        logits: (N, C), C > 1, unnormalised.
        targets: (N,) class indices.
    """
    logits = logits.double()
    best = best_temperature(logits, targets)
    inside = LEAST * 1.01 < best < MOST / 1.01
    return Calibration(
        ece=expected_calibration_error(logits, targets),
        nll=negative_log_likelihood(logits, targets),
        nll_calibrated=negative_log_likelihood(logits, targets, best),
        temperature=best if inside else None,
        soft_from=_where(lambda temperature: not_top(logits, temperature), _ONE_HOT),
        soft_to=_where(lambda temperature: entropy_share(logits, temperature), _UNIFORM),
    )


def expected_calibration_error(logits: Tensor, targets: Tensor, *, bins: int = statistics.BINS) -> float:
    """See edgekd.runtime.statistics.expected_calibration_error.

    Args:
        logits: (N, C), unnormalised.
        targets: (N,) class indices.
        bins: how many, of equal width.

    Returns:
        From 0 to 1.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    correct = predicted == targets
    return statistics.expected_calibration_error(
        statistics.reliability(confidence.cpu().numpy(), correct.cpu().numpy(), bins)
    )


def negative_log_likelihood(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> float:
    """Of the softened probabilities, in nats per image.

    Args:
        logits: (N, C), unnormalised.
        targets: (N,) class indices.
        temperature: T, above 0.
    """
    return float(F.cross_entropy(logits.double() / temperature, targets))


def best_temperature(logits: Tensor, targets: Tensor) -> float:
    """The temperature with the least negative log-likelihood, from LEAST to MOST: golden section on its logarithm.

    The log-likelihood is concave in 1/T, so that there is one optimum; it is found to a relative error of 1e-6.

    Args:
        logits: (N, C), unnormalised.
        targets: (N,) class indices.
    """
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    low, high = math.log(LEAST), math.log(MOST)

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(logits, targets, math.exp(log_temperature))

    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-6:
        # If both are exactly 0, every prediction is correct: a lower temperature is no worse.
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    return math.exp((low + high) / 2.0)


def entropy_share(logits: Tensor, temperature: float = 1.0) -> float:
    """Mean entropy of the softened outputs, as a share of the largest, log C.

    Args:
        logits: (N, C), C > 1, unnormalised.
        temperature: T, above 0.
    """
    log = (logits.double() / temperature).log_softmax(1)
    return float(-(log.exp() * log).sum(1).mean()) / math.log(logits.shape[1])


def not_top(logits: Tensor, temperature: float = 1.0) -> float:
    """Mean probability, softened, of all classes but the most probable one together.

    Args:
        logits: (N, C), unnormalised.
        temperature: T, above 0.
    """
    return float((1.0 - (logits.double() / temperature).softmax(1).amax(1)).mean())


def suggest_temperature(calibration: Calibration) -> tuple[float, float]:
    """The range of temperatures that no measurement here rules out: lowest and highest.

    Not below T*, where the teacher is overconfident; nor where its outputs hardly differ from labels, or from a uniform
    distribution. Which of these temperatures suits a student best, only a training shows.

    Args:
        calibration: the teacher's.
    """
    lowest = max(calibration.soft_from, calibration.temperature or 0.0)
    return min(lowest, calibration.soft_to), calibration.soft_to


def teacher_warnings(teacher: Checkpoint, objective: Sequence[TermSettings]) -> list[str]:
    """Warnings about learning these terms from a teacher.

    Args:
        teacher: calibrated if a recipe trained or evaluated it; others give fewer warnings.
        objective: the terms that a student is trained with.

    Returns:
        One or two sentences per warning.

    Raises:
        pydantic.ValidationError: a term's parameters.
    """
    return [*_of_smoothing(teacher, objective), *_of_temperatures(teacher, objective)]


def gap_warnings(teacher: Checkpoint, baseline: Checkpoint, *, assisted: bool) -> list[str]:
    """Warnings from comparing a teacher with the baseline (labels only); none if their classes differ.

    Args:
        teacher: with its validation accuracy, MACs and parameters.
        baseline: the student's network, trained on labels only, with the same.
        assisted: whether there is an assistant between teacher and student already.

    Returns:
        One warning at most.
    """
    if teacher.classes != baseline.classes:
        return []
    measure = "mAP" if "validation_mAP" in teacher.metrics else "accuracy"
    high, low = (network.metrics[f"validation_{measure}"] for network in (teacher, baseline))
    figures = f"a validation {measure} of {high:.1%}, the baseline (labels only) of {low:.1%}"
    if high < low:
        return [f"The teacher has {figures}: there is little to learn from it. Train it longer, or take another."]
    larger = {key: teacher.metrics[key] / max(baseline.metrics[key], 1) for key in ("macs", "parameters")}
    measure = max(larger, key=lambda key: larger[key])
    if assisted or larger[measure] < _TIMES_LARGER or high - low < _POINTS_AHEAD:
        return []
    name = {"macs": "MACs", "parameters": "parameters"}[measure]
    return [
        f"The teacher has {larger[measure]:.0f} times the student's {name}, and {figures}. Across such a gap students "
        "often learn less (Mirzadeh et al. 2020; the limits are a rule of thumb). A network between them may help: "
        "distill.scheme: {name: assistant, model: …}."
    ]


def _of_smoothing(teacher: Checkpoint, objective: Sequence[TermSettings]) -> list[str]:
    """A smoothed teacher's outputs tell less about similar classes (Müller, Kornblith and Hinton 2019, section 4)."""
    smoothing = teacher.details.training.label_smoothing
    hot = [term.method for term in objective if (method_named(term.method).temperature_of(term) or 0.0) > 2.0]
    if not smoothing:
        return []
    advice = f"; lower the temperature of {', '.join(hot)} towards 1" if hot else ""
    return [
        f"The teacher was trained with label smoothing {smoothing}, which hides how similar classes are: "
        f"students learn less from it. Train the teacher without{advice}."
    ]


def _of_temperatures(teacher: Checkpoint, objective: Sequence[TermSettings]) -> list[str]:
    """Only a teacher that a recipe made or took has been measured; a standardized row of logits has another scale."""
    measured = teacher.metrics.get("calibration")
    if measured is None:
        return []
    calibration, found = Calibration(**measured), []
    lowest, highest = suggest_temperature(calibration)
    for term in on_logits(objective):
        method = method_named(term.method)
        temperature = method.temperature_of(term)
        if temperature is None or method.standardizes(term) or not (why := _against(temperature, calibration)):
            continue
        advice = (
            f"Useful temperatures: {_two_digits(lowest, math.ceil):g} to {_two_digits(highest, math.floor):g}."
            if lowest < highest
            else f"From {highest:.2g} on they are nearly uniform, so none helps: the teacher has learned little."
        )
        found.append(f"At temperature {temperature:g} of {term.method} the teacher's outputs {why}. {advice}")
    return list(dict.fromkeys(found))


def _two_digits(value: float, towards: Callable[[float], int]) -> float:
    """Rounded into a range: its ends must lie inside."""
    scale = 10.0 ** (1 - math.floor(math.log10(value)))
    return towards(value * scale) / scale


def _against(temperature: float, calibration: Calibration) -> str | None:
    known = calibration.temperature
    if temperature < calibration.soft_from:
        return f"are nearly one-hot (other classes together below {_ONE_HOT:.0%}): they tell little more than labels"
    if temperature > calibration.soft_to:
        return f"are nearly uniform (more than {_UNIFORM:.0%} of the largest entropy): they tell classes hardly apart"
    if known is not None and temperature * _CLEARLY < known:
        return f"are overconfident on the validation split: calibrated at {known:.2g} (Guo et al. 2017)"
    return None


def _where(rising: Callable[[float], float], value: float) -> float:
    """The temperature at which a figure that grows with it has a value, or the end that is nearest."""
    low, high = math.log(_COLDEST), math.log(_HOTTEST)
    for _ in range(40):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rising(math.exp(middle)) < value else (low, middle)
    return math.exp((low + high) / 2.0)


@torch.no_grad()
def _outputs(network: nn.Module, loader: Loader) -> tuple[Tensor, Tensor]:
    """Logits (N, C), in the precision in which the network runs as a teacher, and targets (N,)."""
    device = best_device()
    network.to(device).eval()
    precision = resolve_precision("auto", network, device, inference=True)
    with autocast(precision, device):
        seen = [(network(batch.images).float(), batch.targets) for batch in loader.epoch(0)]
    return torch.cat([logits for logits, _ in seen]), torch.cat([targets for _, targets in seen])
