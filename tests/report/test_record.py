from __future__ import annotations

from typing import Any

import pytest

from edgekd.errors import ArtifactError
from edgekd.report.record import parse

Json = dict[str, Any]


def test_a_model_of_an_unknown_role_is_refused(record: Json) -> None:
    record["models"][0]["role"] = "teecher"
    with pytest.raises(ArtifactError, match="no such role: teecher"):
        parse(record)
