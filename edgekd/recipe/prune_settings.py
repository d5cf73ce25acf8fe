"""The recipe's prune section: how much of the student is kept, and by which rules."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgekd.recipe.base import DeviceName, Positive, Ratio, Settings
from edgekd.recipe.distill_settings import RecoverySettings


class PruneTarget(Settings):
    """How much of the network is kept; set exactly one of them."""

    macs: Ratio | None = Field(None, description="fraction of the multiply-accumulates per image to keep")
    parameters: Ratio | None = Field(None, description="fraction of the parameters to keep")
    latency: Ratio | None = Field(
        None, description="fraction of the student's latency to keep, measured on prune.device"
    )
    latency_ms: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="milliseconds for one image, measured on prune.device in fp32"
    )
    size_mb: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="size of the exported fp32 file, in units of 10^6 bytes"
    )

    @model_validator(mode="after")
    def _one_target(self) -> PruneTarget:
        if len(self.model_fields_set - {name for name in self.model_fields_set if getattr(self, name) is None}) != 1:
            raise ValueError(f"set exactly one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def measure(self) -> Literal["macs", "parameters", "latency", "size"]:
        """What is reduced."""
        if self.latency is not None or self.latency_ms is not None:
            return "latency"
        return "size" if self.size_mb is not None else "macs" if self.macs is not None else "parameters"

    @property
    def share(self) -> float | None:
        """The fraction to keep; None where the target is absolute."""
        return next((kept for kept in (self.macs, self.parameters, self.latency) if kept is not None), None)

    @property
    def absolute(self) -> float | None:
        """Milliseconds or 10^6 bytes; None where the target is a fraction."""
        return self.latency_ms if self.latency_ms is not None else self.size_mb


class PruneSettings(RecoverySettings):
    """Structured pruning to a target, then recovery by distillation."""

    target: PruneTarget = Field(PruneTarget(macs=0.5), description="how much of the network is kept")
    device: DeviceName = Field(
        "this-machine",
        description="device whose channel_multiple the layers' widths are rounded to, and that is measured for latency",
    )
    multiple: Positive | None = Field(None, description="round the widths to multiples of this number instead")
    importance: Literal["auto", "group-norm", "magnitude", "batch-norm", "taylor"] = Field(
        "auto",
        description="channels go first that have the smallest weights in all layers that they run through, or in those "
        "that compute them, or the smallest batch-norm scales, or the least effect on the loss, to first order; auto: "
        "taylor; without labels of all training images, or with additional heads, group-norm",
    )
    shares: Literal["uniform", "global", "sensitivity"] = Field(
        "uniform",
        description="each part of it loses the same fraction, or its channels among the least important of the "
        "whole network, or as much as changes the answers equally where it is cut alone",
    )
    steps: Annotated[int, Field(ge=1, le=20)] = Field(
        1, description="prune and recover in so many steps; the epochs are divided among them"
    )
