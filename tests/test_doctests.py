"""The examples in the docstrings of what the device side is called with."""

from __future__ import annotations

import doctest

import pytest
from PIL import Image

import edgekd
from edgekd import runtime


@pytest.mark.parametrize("function", [runtime.load, edgekd.benchmark])
def test_the_example_works_as_it_stands(function, linear_bundle, monkeypatch):
    monkeypatch.chdir(linear_bundle.parent)
    Image.new("RGB", (8, 8), (250, 10, 20)).save("red.png")
    (example,) = doctest.DocTestFinder(recurse=False).find(function, function.__name__, globs={})
    shown: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=shown.append)
    assert result.attempted > 1 and result.failed == 0, "".join(shown)
