"""The variants of a bundle on one engine, compared by latency in turns: the record that their order rests on."""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgekd.bench.interleaved import compare_latency
from edgekd.runtime import processor
from edgekd.runtime.cores import usable_cores

# Latencies within this ratio count as equal, because their order changes from run to run.
SAME = 1.05
Positive = Annotated[int, Field(gt=0)]
Time = Annotated[float, Field(gt=0.0)]


class Turns(BaseModel):
    """Latencies of variants that took turns in one process; figures as in edgekd.bench.interleaved.Comparison.

    Attributes:
        variants: by name; ratios refer to the first one.
        engine: with its version, e.g. "onnxruntime 1.31.1".
        cpu, instruction_sets: of the machine; see edgekd.runtime.processor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    variants: tuple[str, ...]
    milliseconds: tuple[Time, ...]
    ratios: tuple[Time, ...]
    spread: tuple[Annotated[float, Field(ge=0.0)], ...]
    rounds: Positive
    backend: str
    engine: str
    batch_size: Positive
    threads: Positive
    cpu: str
    instruction_sets: tuple[str, ...] | None

    @model_validator(mode="after")
    def _one_figure_per_variant(self) -> Turns:
        counts = {len(each) for each in (self.variants, self.milliseconds, self.ratios, self.spread)}
        if counts != {len(set(self.variants))} or not self.variants:
            raise ValueError("each variant has one latency, one ratio and one spread")
        return self

    @property
    def reference(self) -> str:
        return self.variants[0]

    def time(self, variant: str) -> float:
        """Milliseconds per call."""
        return self.milliseconds[self.variants.index(variant)]

    def share(self, variant: str) -> float:
        """The latency relative to the reference's."""
        return self.ratios[self.variants.index(variant)]

    def ratio(self, variant: str, to: str) -> tuple[float, float]:
        """The latency of a variant relative to another's, and its spread over the rounds."""
        one, other = self.variants.index(variant), self.variants.index(to)
        ratio = self.ratios[one] / self.ratios[other]
        shares = (self.spread[each] / self.ratios[each] for each in (one, other))
        return ratio, ratio * hypot(*shares)

    def as_fast(self, variant: str, to: str) -> bool:
        """Whether two latencies count as equal: within SAME, or within the spread of their ratio."""
        ratio, spread = self.ratio(variant, to)
        return max(ratio, 1.0 / ratio) <= SAME or abs(ratio - 1.0) <= spread


def take_turns(
    files: Mapping[str, Path],
    *,
    backend: str,
    engine: str,
    batch_size: int,
    threads: int | None = None,
    seconds: float = 0.04,
) -> Turns:
    """Measure variants in turns on this machine.

    Args:
        files: their graphs, by variant; the first is what the others are compared with.
        backend: by name.
        engine: the engine's name and version, for the record.
        batch_size: images in one call.
        threads: per operator; None: one per usable core.
        seconds: length of a turn.

    Raises:
        BenchError, BackendError: as compare_latency().
    """
    found = compare_latency(
        list(files.values()), backend=backend, threads=threads, seconds=seconds, batch_size=batch_size
    )
    return Turns(
        variants=tuple(files),
        milliseconds=found.milliseconds,
        ratios=found.ratios,
        spread=found.spread,
        rounds=found.rounds,
        backend=backend,
        engine=engine,
        batch_size=batch_size,
        threads=threads or usable_cores(),
        cpu=processor.name(),
        instruction_sets=processor.instruction_sets(),
    )
