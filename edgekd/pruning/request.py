"""What is pruned, how far and by which rules; checked on untrained networks, carried out on trained ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from torch import nn

from edgekd.devices import profiles
from edgekd.errors import ModelError
from edgekd.pruning import importance
from edgekd.pruning.channels import Channels
from edgekd.pruning.flow import Flow
from edgekd.pruning.importance import Losses, Scores
from edgekd.pruning.meters import Counted, FileSize, Latency, Meter
from edgekd.pruning.search import narrowest, refuse_unreachable
from edgekd.recipe.settings import PruneSettings, PruneTarget, RecipeSettings
from edgekd.runtime.preprocess import InputShape


@dataclass(frozen=True)
class Request:
    """How a network is pruned.

    Attributes:
        target: how much is kept.
        multiple: changed widths become multiples of this.
        importance, shares: see PruneSettings.
        device, threads: where and with how many threads a latency is measured.
        opset: of graphs that are exported to be measured.
    """

    target: PruneTarget
    multiple: int
    importance: Literal["auto", "group-norm", "magnitude", "batch-norm", "taylor"] = "group-norm"
    shares: Literal["uniform", "global", "sensitivity"] = "uniform"
    device: str = "this-machine"
    threads: int | None = None
    opset: int = 17

    @classmethod
    def of(cls, recipe: RecipeSettings, settings: PruneSettings) -> Request:
        """Raises UnknownNameError where there is no such device."""
        multiple = settings.multiple or profiles.find(settings.device).channel_multiple
        return cls(
            settings.target,
            multiple,
            settings.importance,
            settings.shares,
            settings.device,
            recipe.bench.threads,
            recipe.export.opset,
        )

    @property
    def needs_images(self) -> bool:
        """Whether its rules ask images, or may do so."""
        return self.importance in ("auto", "taylor") or self.shares == "sensitivity"

    def decided(self, *, labelled: bool) -> Request:
        """With the importance that auto stands for.

        Args:
            labelled: whether there are labels of all that the network answers.
        """
        if self.importance != "auto":
            return self
        return replace(self, importance="taylor" if labelled else "group-norm")

    @contextmanager
    def meter(self) -> Iterator[Meter]:
        """What the target is measured by; files that it needs are removed afterwards."""
        with TemporaryDirectory() as folder:
            if self.target.measure == "latency":
                yield Latency(Path(folder), self.opset, self.device, self.threads)
            elif self.target.measure == "size":
                yield FileSize(Path(folder), self.opset)
            else:
                yield Counted(self.target.measure)

    def scores(self, losses: Losses | None) -> Callable[[nn.Module, Flow], Scores]:
        """From a network and its channels to their importance. Raises ModelError where it cannot tell them apart.

        Args:
            losses: for importance by gradients.
        """
        if self.importance == "taylor":
            assert losses is not None
            return partial(importance.taylor, losses=losses)
        return {
            "group-norm": importance.group_norm,
            "magnitude": importance.magnitude,
            "batch-norm": importance.batch_norm,
        }[self.importance]


def check(request: Request, model: nn.Module, shape: InputShape) -> float:
    """Check on an untrained network that it can be pruned so far: which channels can go does not depend on weights.

    Returns:
        The fraction that the narrowest network keeps.

    Raises:
        ModelError: this network cannot be pruned, or not as far as the target.
        ExportError, BenchError, BackendError: a latency or size that cannot be measured.
    """
    channels = Channels.of(model, shape, request.multiple)
    norms = nn.modules.batchnorm._BatchNorm
    if request.importance == "batch-norm" and not any(isinstance(module, norms) for module in model.modules()):
        raise ModelError(
            "batch-norm scales cannot tell this network's channels apart",
            found=f"no batch norm in {type(model).__name__}",
            allowed="group-norm, magnitude or taylor",
            hint="set prune.importance",
        )
    with request.meter() as meter:
        least = narrowest(channels, meter)
        target = share_of(request.target, meter, channels)
        refuse_unreachable(channels, least, meter, target, absolute=request.target.absolute is not None)
    return least


def share_of(target: PruneTarget, meter: Meter, channels: Channels, kept: float = 1.0, steps: int = 1) -> float:
    """The fraction of a network that the first of `steps` equal steps towards a target keeps.

    Args:
        target: of all steps; a fraction is one of the network before the first step.
        meter: what the target is in.
        channels: of the network.
        kept: what earlier steps kept.
        steps: how many steps there are still.

    Raises:
        ModelError: the network meets the target already.
    """
    base = meter.base(channels) if target.absolute is not None else 1.0
    remaining = target.share / kept if target.share is not None else (target.absolute or 0.0) / base
    if remaining >= 1.0:
        raise ModelError(
            "there is nothing to prune: the network meets the target already",
            found=f"{meter.title} {base:.3g} {meter.unit}, target {target.absolute:g} {meter.unit}"
            if target.absolute
            else f"{kept:.3f} kept",
            hint="set a smaller target, or remove the prune section",
        )
    return float(remaining ** (1 / steps))
