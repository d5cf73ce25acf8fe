from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edgekd.errors import ArtifactError
from edgekd.report.record import parse
from edgekd.report.verdict import Bound, Verdict

Json = dict[str, Any]
SIZE = {"name": "size_mb", "limit": 4.0, "value": 5.0, "met": False, "nearest": {"model": "student-fp16", "value": 4.5}}
VERDICT = {"met": False, "model": "student-fp32", "engine": None, "bounds": [SIZE], "within": None}


def test_a_record_keeps_its_verdict_and_one_of_before_has_none(record: Json) -> None:
    assert parse(record).budget is None
    kept = parse({**record, "budget": VERDICT}).budget
    assert kept == Verdict.model_validate(VERDICT) and kept.models == {"student-fp32", "student-fp16"}


def test_a_verdict_on_a_model_that_the_record_does_not_have_is_refused(record: Json) -> None:
    with pytest.raises(ArtifactError, match="no such model: student-fp8"):
        parse({**record, "budget": {**VERDICT, "within": "student-fp8"}})


def test_a_bound_of_another_name_is_refused() -> None:
    with pytest.raises(ValidationError, match="latency_ms"):
        Bound.model_validate({**SIZE, "name": "energy_mj"})
