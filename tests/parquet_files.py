"""Parquet files of small images, as Hugging Face lays them out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from edgekd.data.sources import parquet
from edgekd.data.sources._columns import ColumnSettings

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def table(labels: Any, *, image: str = "img", label: str = "label", names: Any = None) -> pa.Table:
    images = [{"bytes": png(PIXELS[row]), "path": None} for row in range(len(labels))]
    made = pa.table({image: images, label: labels})
    if names is None:
        return made
    metadata = names if isinstance(names, bytes) else json.dumps({"info": {"features": {label: {"names": names}}}})
    return made.replace_schema_metadata({"huggingface": metadata})


def read(root: Path, **settings: Any) -> Any:
    return parquet.read(ColumnSettings(source="parquet", root=root, **settings))
