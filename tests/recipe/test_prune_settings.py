"""A target is one of a fraction or an absolute value, of what is counted or measured."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from edgekd.recipe.settings import PruneTarget


@pytest.mark.parametrize(
    ("target", "measure", "share", "absolute"),
    [
        ({"macs": 0.5}, "macs", 0.5, None),
        ({"parameters": 0.3}, "parameters", 0.3, None),
        ({"latency": 0.6}, "latency", 0.6, None),
        ({"latency_ms": 4}, "latency", None, 4.0),
        ({"size_mb": 1.5}, "size", None, 1.5),
        ({"macs": None, "size_mb": 2}, "size", None, 2.0),
    ],
)
def test_the_one_target(target, measure, share, absolute):
    found = PruneTarget(**target)
    assert (found.measure, found.share, found.absolute) == (measure, share, absolute)


@pytest.mark.parametrize("target", [{}, {"macs": 0.5, "latency": 0.5}, {"latency": 0.5, "latency_ms": 3}])
def test_none_and_several_are_refused(target):
    with pytest.raises(ValidationError, match="set exactly one of macs, parameters, latency, latency_ms, size_mb"):
        PruneTarget(**target)


@pytest.mark.parametrize("target", [{"latency": 1.5}, {"latency": 0}, {"latency_ms": -1}, {"size_mb": 0}])
def test_numbers_out_of_range_are_refused(target):
    with pytest.raises(ValidationError):
        PruneTarget(**target)
