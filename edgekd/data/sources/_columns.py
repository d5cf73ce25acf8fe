"""The options that all sources of tables have."""

from __future__ import annotations

from pydantic import Field

from edgekd.recipe.base import Name
from edgekd.recipe.settings import DataSettings


class ColumnSettings(DataSettings):
    """Which columns of a table are read."""

    image_column: Name | None = Field(None, description="the column of the images; default: one with a usual name")
    label_column: Name | None = Field(None, description="the column of the labels; default: one with a usual name")
