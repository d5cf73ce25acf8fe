"""What a run made: what its report is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
        networks: those that are exported in float, by their role, in the chain's order; the last of them ships.
        final: the one that ships in float.
        exported: their graphs, and which of them ship.
        warnings: about the teacher, from before the student was trained.
        measured: on this machine, in the engines that open a graph.
        engines: the same of the engines that were built here; None where nothing builds any.
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
        """All that are exported: those in float, and the quantized ones."""
        if self.quantized is None:
            return dict(self.networks)
        calibrated, trained = self.quantized.calibrated, self.quantized.trained
        compared = {PTQ: calibrated} if calibrated is not trained else {}
        return {**self.networks, **compared, QUANTIZED: trained}

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """Every network, those among them that are not exported."""
        inner = [self.pruned.pruned] if self.pruned is not None else []
        return [*self.roles.values(), *inner]


def exported_networks(
    teacher: Checkpoint | None, student: Distilled, baseline: Checkpoint | None, pruned: Pruned | None
) -> dict[Role, Checkpoint]:
    """The networks that are exported in float, in the order in which a report shows them."""
    found = {
        TEACHER: teacher,
        **{role_named(name): network for name, network in student.others.items()},
        BASELINE: baseline,
        STUDENT: student.student,
        RECOVERED: pruned.recovered if pruned is not None else None,
    }
    return {role: network for role, network in found.items() if network is not None}
