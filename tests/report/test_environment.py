from __future__ import annotations

import pytest

from edgekd.report.environment import date, facts


def test_names_are_those_of_prose() -> None:
    found = facts({"cpu": "AMD EPYC", "power_mode": None, "ONNX Runtime": "1.31", "cores": 2, "torchvision": "0.29"})
    assert found == {
        "CPU": "AMD EPYC",
        "Power mode": "unknown",
        "ONNX Runtime": "1.31",
        "Cores": "2",
        "torchvision": "0.29",
    }


@pytest.mark.parametrize(
    ("created", "text"),
    [
        ("2026-03-14T09:26:53+00:00", "14 March 2026, 09:26 UTC"),
        ("2026-03-14T01:26:53+02:00", "13 March 2026, 23:26 UTC"),
        ("2026-03-14", "14 March 2026, 00:00 UTC"),
        ("yesterday", "yesterday"),
    ],
)
def test_the_date_is_in_utc(created: str, text: str) -> None:
    assert date(created) == text
