"""What records in JSON are made of: their base classes, and types of values."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
# No measurement is larger; nearer to the largest float, charts could not be computed.
_LARGEST = 1e100
Span = Annotated[float, Field(ge=0.0, le=_LARGEST)]
Time = Annotated[float, Field(gt=0.0, le=_LARGEST)]


class Frozen(BaseModel):
    """Frozen, without unknown keys, and with finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Measured(BaseModel):
    """Part of an artifact's metrics: what is read by name has a type; what else was measured may be anything."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)


class Metrics(Measured):
    """The metrics of an artifact; `warnings` are shown to people."""

    warnings: tuple[str, ...] = ()
