"""The result of a run: all its artifacts, which the report shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgekd.data.dataset import Dataset
from edgekd.export.bundle import Bundle
from edgekd.models.checkpoint import Checkpoint
from edgekd.runs import Role
from edgekd.stages.benchmark import Measurements
from edgekd.stages.distill import STUDENT, Distilled, role_named
from edgekd.stages.evaluate import Evaluation
from edgekd.stages.export import Exported
from edgekd.stages.prune import RECOVERED, Pruned
from edgekd.stages.quantize import PTQ, QUANTIZED, Quantized
from edgekd.stages.train import BASELINE, TEACHER


@dataclass(frozen=True)
class Result:
    """Every artifact of a chain.

    Attributes:
        networks: the networks exported in float, by role, in the chain's order; the last of them ships.
        final: the float network that ships.
        exported: all graphs, and which of them ship.
        warnings: about the teacher.
        measured: latencies on this machine, in engines that run graphs.
        engines: latencies of engines built on this machine; None where no backend builds any.
    """

    data: Dataset
    networks: Mapping[Role, Checkpoint]
    final: Checkpoint
    exported: Exported
    scores: Evaluation
    measured: Measurements
    bundle: Bundle
    pruned: Pruned | None = None
    quantized: Quantized | None = None
    warnings: tuple[str, ...] = ()
    engines: Measurements | None = None

    @property
    def roles(self) -> dict[Role, Checkpoint]:
        """All exported networks, float and quantized, by role."""
        if self.quantized is None:
            return dict(self.networks)
        calibrated, trained = self.quantized.calibrated, self.quantized.trained
        compared = {PTQ: calibrated} if calibrated is not trained else {}
        return {**self.networks, **compared, QUANTIZED: trained}

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """All networks, including the pruned one before its recovery, which is not exported."""
        inner = [self.pruned.pruned] if self.pruned is not None else []
        return [*self.roles.values(), *inner]


def exported_networks(
    teacher: Checkpoint | None, student: Distilled, baseline: Checkpoint | None, pruned: Pruned | None
) -> dict[Role, Checkpoint]:
    """The networks that are exported in float, by role, in the order of the report."""
    networks = {
        TEACHER: teacher,
        **{role_named(name, student.titles.get(name)): network for name, network in student.others.items()},
        BASELINE: baseline,
        _student(student.titles.get(STUDENT.name)): student.student,
        RECOVERED: pruned.recovered if pruned is not None else None,
    }
    return {role: network for role, network in networks.items() if network is not None}


def _student(title: str | None) -> Role:
    return STUDENT if title is None else replace(STUDENT, title=title, legend=title[:1].lower() + title[1:])
