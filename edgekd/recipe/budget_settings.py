"""The recipe's budget: what the file that ships may cost, and what it may lose."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from edgekd.recipe.base import Settings, Share, VariantName

BoundName = Literal["latency_ms", "accuracy_drop", "agreement", "size_mb"]


class BudgetSettings(Settings):
    """Bounds on one file that ships. Another accuracy_drop or agreement packs again, and may quantize again."""

    latency_ms: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="largest median latency of one image on this machine, in milliseconds"
    )
    accuracy_drop: Share | None = Field(
        None,
        description="largest loss of test accuracy, with several labels per image of mAP, as a fraction (0.01 is one "
        "point): against the teacher, without one against the student in fp32 before it is compressed",
    )
    agreement: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="for images without labels: smallest fraction of them that is answered as in fp32"
    )
    size_mb: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="largest size of the file, in megabytes of 1,000,000 bytes"
    )

    variant: VariantName | None = Field(
        None,
        description="the variant that is judged; default: the one that an app loads on this machine, the bundle's "
        "default for the engine that was measured",
    )

    @property
    def limits(self) -> dict[BoundName, float]:
        """The bounds that are set, in the order of the settings."""
        known: dict[BoundName, float | None] = {
            "latency_ms": self.latency_ms,
            "accuracy_drop": self.accuracy_drop,
            "agreement": self.agreement,
            "size_mb": self.size_mb,
        }
        return {name: limit for name, limit in known.items() if limit is not None}

    @model_validator(mode="after")
    def _not_empty(self) -> BudgetSettings:
        if not self.limits:
            raise ValueError(f"needs at least one of {', '.join(get_args(BoundName))}")
        return self
