"""Mixed precision: where int8 without training loses too much, the operations that cause it stay in float."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from edgekd import units
from edgekd.bench.environment import environment, fingerprint, require_real_processor
from edgekd.bench.interleaved import Comparison, compare_latency
from edgekd.bench.turns import SAME
from edgekd.data.dataset import Dataset
from edgekd.data.reader import open_reader
from edgekd.errors import BackendError, BenchError, ExportError
from edgekd.export.int8 import with_constant_scales
from edgekd.export.integer import integer_graph
from edgekd.export.onnx import graph_of
from edgekd.export.subnormals import flush_subnormals
from edgekd.models.checkpoint import Checkpoint
from edgekd.pruning.images import probes_of
from edgekd.quantization.float_layers import operations
from edgekd.quantization.mixed import MOST, Choice, fewest, with_blocks
from edgekd.quantization.post_training import PostTraining, with_float
from edgekd.quantization.sensitivity import Sensitivity, images_for, scan
from edgekd.recipe.settings import RecipeSettings
from edgekd.runs import Run, Stage, part_of
from edgekd.runtime import average_precision, statistics
from edgekd.runtime.preprocess import InputShape
from edgekd.runtime.statistics import Difference
from edgekd.stages import _calibrated as calibration
from edgekd.stages import _facts
from edgekd.store.plan import is_pending
from edgekd.training.fit import Progress
from edgekd.wording import counted

# What int8 may lose where the recipe's budget sets no bound: 0.5 points.
ALLOWED = 0.005
# Training through the quantizers recovers most of what rounding costs: before it, so much more may be lost.
BEFORE_TRAINING = 10
_JUDGED, _BATCH = 2048, 32
_NAMED = 3


def kept_facts(checkpoint: Checkpoint) -> list[str]:
    """Which operations stay in float, in one short line; none where all are in int8."""
    left = list(checkpoint.metrics["left_in_float"])
    if not left:
        return []
    named = ", ".join(left[:_NAMED]) + ("…" if len(left) > _NAMED else "")
    stay = "stays" if len(left) == 1 else "stay"
    return [f"{len(left)} of {counted(checkpoint.metrics['operations'], 'operation')} {stay} in float: {named}"]


def _mixed_facts(checkpoint: Checkpoint) -> list[str]:
    mixed = checkpoint.metrics["mixed"]
    if not mixed["kept"]:
        return ["none has to stay in float", *_facts.network_facts(checkpoint)[:1]]
    before, after = (units.lost(mixed[each]["value"]) for each in ("before", "after"))
    lost = f"int8 {before} points of {mixed['measure']}, with these in float it {after}"
    return [*kept_facts(checkpoint), lost, *_facts.network_facts(checkpoint)[:1]]


STAGE = Stage("mixed", "Sensitive layers in float", version=1, section="quantize", facts=_mixed_facts)


def sensitive_in_float(run: Run, student: Checkpoint, calibrated: Checkpoint, data: Dataset) -> Checkpoint:
    """The calibrated network with as few operations in float as keep it within what int8 may lose.

    The calibrated network itself where nothing has to be kept: with everything in int8 it loses no more than allowed,
    the recipe has a list of its own, or there is nothing to judge by.

    Args:
        student: the float network.
        calibrated: all of it in int8, its scales calibrated.

    Raises:
        ModelError, DataError: as edgekd.stages.quantize.calibrate().
    """
    settings = run.recipe.quantize
    assert settings is not None
    if settings.keep_float != "auto" or is_pending(calibrated):
        return calibrated
    if (allowed := allowed_drop(run.recipe, data)) is None:
        return calibrated
    before = calibration.before_int8(student, data)
    if before is not None and before - calibrated.metrics[f"validation_{data.measure}"] <= allowed:
        return calibrated
    search = _Search(allowed, data, settings.learned, run.recipe.export.opset, run.recipe.bench.threads)
    return run.stage(
        STAGE,
        Checkpoint,
        settings={
            "images": settings.calibration_images,
            "method": settings.calibration,
            "learned": settings.learned,
            "allowed": allowed,
            "opset": search.opset,
            "threads": search.threads,
            "machine": fingerprint(environment()),
        },
        inputs={"student": student, "calibrated": calibrated, "data": data},
        make=lambda out: search.made(
            student, settings.calibration_images, settings.calibration, out, run.progress(STAGE.name)
        ),
    )


def allowed_drop(recipe: RecipeSettings, data: Dataset) -> float | None:
    """What a network may lose by int8 on the validation images, as a fraction; None where nothing says so."""
    budget, settings = recipe.budget, recipe.quantize
    if data.measure == "agreement":
        if budget is None or budget.agreement is None:
            return None
        allowed = 1.0 - budget.agreement
    elif budget is None or budget.accuracy_drop is None:
        allowed = ALLOWED
    else:
        # With a teacher the budget counts from it, and distillation may have used it up.
        allowed = budget.accuracy_drop if recipe.teacher is None else min(budget.accuracy_drop, ALLOWED)
    return allowed * (BEFORE_TRAINING if settings is not None and settings.mode == "qad" else 1)


@dataclass(frozen=True)
class _Search:
    """What may be lost (`allowed`), on which images it is judged, and how candidates are made, exported and timed."""

    allowed: float
    data: Dataset
    learned: bool
    opset: int
    threads: int | None

    def made(
        self, student: Checkpoint, images: int, method: str, out: Path, progress: Progress | None = None
    ) -> Checkpoint:
        """Calibrate once more, choose what stays in float, and save the network."""
        calibrated = calibration.calibrated(student, self.data, images, method=method, learned=self.learned)
        made = calibrated.made
        judge = Judge(self.data, made.reference)
        before = judge.lost(made.quantized.model)
        found: tuple[Sensitivity, ...] = ()
        choice, latency = Choice((), before.value, met=True, tried=1), None
        needed = choice.keep
        # A drop that may be chance is no reason to keep anything.
        if before.value > self.allowed and before.low > 0.0:
            found = sensitivities(made, self.data, progress)
            choice = self._chosen(made, found, judge, progress)
            needed = choice.keep
            choice, latency = self._faster(made, choice, judge, student.details.preprocessing.shape)
        quantized = with_float(made, choice.keep) if choice.keep else made.quantized
        after = judge.lost(quantized.model) if choice.keep else before
        reasons = _reasons(choice.keep, needed, found)
        notes = [self._missed(choice, before, made.quantized.operations)] if not choice.met else []
        notes += [] if latency is None or isinstance(latency, Comparison) else [latency]
        metrics = {
            "mixed": {
                "measure": self.data.measure,
                "allowed": self.allowed,
                "images": judge.images,
                "before": asdict(before),
                "after": asdict(after),
                "kept": list(reasons),
                "met": choice.met,
                "tried": choice.tried,
                "sensitivity": [asdict(each) for each in found],
                "latency": latency.model_dump(mode="json") if isinstance(latency, Comparison) else None,
            },
            "warnings": notes,
        }
        return calibration.save(calibrated, quantized, reasons, metrics, out)

    def _chosen(
        self, made: PostTraining, found: Sequence[Sensitivity], judge: Judge, progress: Progress | None
    ) -> Choice:
        tell, tried = part_of(progress, 2, 3, "trying sets in float"), 0

        def drop(keep: tuple[str, ...]) -> float:
            nonlocal tried
            tried += 1
            if tell is not None:
                tell(tried, tried + 1)
            return judge.lost(with_float(made, keep).model).value

        ranked = [each.name for each in sorted(found, key=lambda each: -each.error) if each.error > 0.0]
        return fewest(ranked, drop, self.allowed, round(MOST * made.quantized.operations))

    def _faster(
        self, made: PostTraining, choice: Choice, judge: Judge, shape: InputShape
    ) -> tuple[Choice, Comparison | str | None]:
        """The choice, or whole blocks around it where these are faster; and the latencies, or why there are none."""
        if not choice.keep:
            return choice, None
        most = round(MOST * made.quantized.operations)
        in_int8 = [name for name in operations(made.reference) if name not in made.quantized.left_in_float]
        blocks = with_blocks(choice.keep, in_int8, most)
        sets: list[tuple[str, ...]] = [(), choice.keep]
        wider = Choice(blocks, 0.0, met=True, tried=choice.tried)
        if choice.met and len(choice.keep) < len(blocks) <= most:
            wider = Choice(blocks, judge.lost(with_float(made, blocks).model).value, met=True, tried=choice.tried + 1)
            sets += [blocks] if wider.drop <= self.allowed else []
        try:
            require_real_processor("quantize.keep_float: auto")
            measured = self._latencies(made, sets, shape)
        except (BenchError, BackendError, ExportError) as error:
            return choice, f"What stays in float was chosen without latencies: {error.what}"
        if len(sets) == 3 and measured.ratios[2] * SAME < measured.ratios[1]:
            return wider, measured
        return choice, measured

    def _latencies(self, made: PostTraining, sets: Sequence[tuple[str, ...]], shape: InputShape) -> Comparison:
        """Of the graphs for ONNX Runtime, in turns."""
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"{number}.onnx" for number in range(len(sets))]
            for file, keep in zip(files, sets, strict=True):
                pairs = graph_of(with_constant_scales(with_float(made, keep).model), shape, self.opset)
                flush_subnormals(pairs)
                onnx.save(integer_graph(pairs), file)
            return compare_latency(files, backend="onnxruntime", threads=self.threads)

    def _missed(self, choice: Choice, before: Difference, count: int) -> str:
        kept = f"{len(choice.keep)} of {count} operations"
        return (
            f"int8 loses more than the {100 * self.allowed:.1f} points that are allowed: {100 * before.value:.1f} "
            f"with everything in int8, {100 * choice.drop:.1f} with {kept} in float, the nearest of {choice.tried} "
            "sets that were tried. fp32 is the better file of this network; quantize.mode: qad trains it through its "
            "quantizers."
        )


class Judge:
    """Compares networks with a float network on validation images, at most 2,048.

    Attributes:
        images: how many there are.
    """

    def __init__(self, data: Dataset, reference: nn.Module) -> None:
        self._data = data
        self._reader = open_reader(data, "validation")
        self.images = min(_JUDGED, len(self._reader))
        self._rows = np.linspace(0, len(self._reader) - 1, self.images).astype(np.int64)
        self._expected = self._answers(reference)

    def lost(self, network: nn.Module) -> Difference:
        """How much lower the network's score is than the float network's, paired by image."""
        expected, found, labels = self._expected[0], *self._answers(network)
        if not self._data.multilabel:
            return statistics.paired(expected.argmax(1) == labels, found.argmax(1) == labels)
        value, resampled = zip(*(_scored(each, labels) for each in (expected, found)), strict=True)
        return average_precision.paired(value[0] - value[1], resampled[0], resampled[1])

    def _answers(self, network: nn.Module) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        network.eval()
        logits, labels = [], []
        with torch.inference_mode():
            for images, targets in self._reader.batches(self._rows, size=_BATCH):
                logits.append(network(torch.from_numpy(images))[:, : len(self._data.classes)].numpy())
                labels.append(targets)
        return np.concatenate(logits), np.concatenate(labels)


def sensitivities(made: PostTraining, data: Dataset, progress: Progress | None = None) -> tuple[Sensitivity, ...]:
    """What int8 costs at each operation of a calibrated network, on validation images; never those of the test."""
    probes = probes_of(data, images_for(made.quantized.operations))
    layout = torch.channels_last
    batches = [images.contiguous(memory_format=layout) for images in probes.images]
    tell = part_of(progress, 1, 3, "each operation alone in int8")
    return scan(made.reference, made.quantized.model, batches, probes.correct, shown=tell)


def _scored(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> tuple[float, npt.NDArray[np.float64]]:
    value = average_precision.mean_average_precision(logits, labels)
    return value, average_precision.mean_of(average_precision.resampled(logits, labels))


def _reasons(keep: Sequence[str], needed: Sequence[str], found: Sequence[Sensitivity]) -> dict[str, str]:
    """Why each of these stays in float; those that are not needed make its block whole."""
    errors = {each.name: f"in int8 it alone changes the answers by {100 * each.error:.2g} %" for each in found}
    return {
        name: errors[name] if name in needed else "with the rest of its block in float, which is faster"
        for name in keep
    }
