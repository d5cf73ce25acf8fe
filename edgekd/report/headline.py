"""The report's headline: the result in one sentence."""

from __future__ import annotations

from edgekd.report import figures
from edgekd.report.model_record import ModelEntry
from edgekd.report.record import MeasurementEntry, Record
from edgekd.runtime import average_precision
from edgekd.runtime.statistics import Difference, paired, unpacked, unpaired
from edgekd.stages.distill import STUDENT

_SAME = 1.05


def difference(one: ModelEntry, other: ModelEntry) -> Difference:
    """The difference of two models' scores: paired, because both were measured on the same test images."""
    if one.replicates and other.replicates:
        return average_precision.paired(one.score - other.score, one.replicates, other.replicates)
    if one.correct and other.correct and one.samples == other.samples:
        return paired(unpacked(one.correct, one.samples), unpacked(other.correct, other.samples))
    # A report of an earlier version has no single answers.
    counted = [(round(model.score * model.samples), model.samples) for model in (one, other)]
    return unpaired(counted[0], counted[1])


def headline(record: Record) -> str:
    """One sentence: accuracy and latency of the chosen student, against its teacher and its baseline."""
    model = chosen(record)
    if model is None:
        return "No model was made in this run."
    were = "was" if len(record.left_out) == 1 else "were"
    missing = f" {' and '.join(record.left_out)} {were} left out, see the warnings." if record.left_out else ""
    if record.budget is not None and not record.budget.met:
        missing = f" Budget missed: {record.budget.missed}.{missing}"
    if model.problems:
        name = "" if model.ships else f"the {model.role}: "
        return f"Not usable: {name}{'; '.join(model.problems)}.{missing}"
    comparisons = [
        _shortfall(record, model),
        _comparison(record, model),
        _gain(record, model),
        *_agreements(record, model),
    ]
    details = ", ".join(part for part in comparisons if part)
    return f"{_opening(record, model)}{': ' + details if details else ''}.{missing}"


def chosen(record: Record) -> ModelEntry | None:
    """The model that an app loads on this machine; where the record has none, the most accurate one that ships, or of
    all."""
    if record.loaded is not None:
        return record.model(record.loaded)
    models = [model for model in record.models if model.ships] or list(record.models)
    return max(models, key=lambda model: model.score, default=None)


def single(record: Record, model: ModelEntry) -> MeasurementEntry | None:
    """A model's measurement with batch size 1, with the first device and engine in the record."""
    found = [entry for entry in record.measurements if entry.place == record.measurements[0].place]
    return next((entry for entry in found if entry.model == model.id and entry.batch_size == 1), None)


def teacher_of(record: Record) -> ModelEntry | None:
    return next((model for model in record.models if record.part(model) == "teacher"), None)


def baseline_of(record: Record, model: ModelEntry) -> ModelEntry | None:
    """The baseline in the model's variant, or else the first baseline."""
    baselines = [other for other in record.models if record.part(other) == "baseline"]
    return next((b for b in baselines if b.variant == model.variant), baselines[0] if baselines else None)


def failed(record: Record, model: ModelEntry) -> bool:
    """Whether a model is no success, however small and fast it is."""
    missed = record.budget is not None and not record.budget.met
    return missed or bool(model.problems) or bool(_shortfall(record, model))


def _shortfall(record: Record, model: ModelEntry) -> str:
    """For example "78.3 points below the teacher", where certainly more than 5 points were lost; else empty.

    Where there is no teacher, or nothing was lost against it, against the student before its compression.
    """
    student = next((each for each in record.models if each.role == STUDENT.name), None)
    for other, name in ((teacher_of(record), "the teacher"), (student, "the student before compression")):
        if other is not None and other is not model and (gap := difference(model, other)).much_worse:
            return f"{figures.points(-gap.value, model.samples).lstrip('+')} below {name}"
    return ""


def _opening(record: Record, model: ModelEntry) -> str:
    name = "" if model.ships else f"The {model.role}: "
    if _is_reference(record, model):
        entry = single(record, model)
        return f"{name}{model.variant} in {figures.size(model.size_bytes)}" + (f", {_latency(entry)}" if entry else "")
    prefix = "mAP " if record.data.measure == "mAP" else ""
    score = f"{name}{prefix}{figures.percent(model.score, model.samples)}"
    if record.data.measure == "agreement":
        score += " of the answers as in fp32, no labels given,"
    entry = single(record, model)
    if entry is None:
        return f"{score} in {figures.size(model.size_bytes)}"
    return f"{score} at {_latency(entry)}"


def _latency(entry: MeasurementEntry) -> str:
    guess = "" if entry.provenance == "measured" else f"an {entry.provenance} "
    return f"{guess}{figures.milliseconds(entry.latency_ms.p50)}"


def _is_reference(record: Record, model: ModelEntry) -> bool:
    """Whether the agreement of a model would be one with itself."""
    return record.data.measure == "agreement" and record.pruning is None and model.precision == "fp32"


def _agreements(record: Record, model: ModelEntry) -> list[str]:
    """Where the chosen model is the one that others are compared with, how often those in int8 answer as it does."""
    if not _is_reference(record, model):
        return []
    return [
        f"{other.variant} gives {figures.percent(other.score, other.samples)} of its answers"
        for other in record.models
        if other.ships and other.precision == "int8" and not other.problems
    ]


def _comparison(record: Record, model: ModelEntry) -> str:
    """For example "14× smaller and 9.1× faster than the teacher"."""
    teacher = teacher_of(record)
    if teacher is None or teacher is model:
        return ""
    verdicts = [_verdict(teacher.size_bytes, model.size_bytes, "smaller", "larger")]
    mine, theirs = single(record, model), single(record, teacher)
    if mine is not None and theirs is not None and not mine.emulated:
        verdicts.append(_verdict(theirs.latency_ms.p50, mine.latency_ms.p50, "faster", "slower"))
    differences = [(sign, text) for sign, text in verdicts if sign != 0]
    if not differences:
        return "as large and as fast as the teacher" if len(verdicts) == 2 else "as large as the teacher"
    mixed = len({sign for sign, _ in differences}) == 2
    busy = " (on a disturbed machine)" if any(entry is not None and entry.flags for entry in (mine, theirs)) else ""
    return (" but " if mixed else " and ").join(text for _, text in differences) + f" than the teacher{busy}"


def _verdict(theirs: float, mine: float, better: str, worse: str) -> tuple[int, str]:
    """1, 0 or -1 for better, about the same or worse; and the text."""
    if mine <= 0 or theirs <= 0:
        return 0, ""
    if theirs / mine >= _SAME:
        return 1, f"{figures.times(theirs / mine)} {better}"
    if mine / theirs >= _SAME:
        return -1, f"{figures.times(mine / theirs)} {worse}"
    return 0, ""


def _gain(record: Record, model: ModelEntry) -> str:
    """For example "+1.3 points over the same student trained on labels only"."""
    baseline = baseline_of(record, model)
    if baseline is None or not model.ships:
        return ""
    name = f"{_relation(baseline, model)} trained on labels only"
    gap = difference(model, baseline)
    text = figures.points(gap.value, model.samples)
    if not gap.certain:
        return f"not significantly different from {name} ({text}, within the 95 % interval)"
    return f"{text} {'over' if gap.value > 0 else 'against'} {name}"


def _relation(baseline: ModelEntry, model: ModelEntry) -> str:
    """How the baseline relates to the model; pruning keeps the architecture's name and reduces its MACs, heads add."""
    more = baseline.macs is not None and model.macs is not None and model.macs > baseline.macs
    if baseline.architecture != model.architecture or more:
        return "the baseline"
    return "the same student" if baseline.macs == model.macs else "the unpruned student"
