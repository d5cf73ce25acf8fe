"""The examples in the docstrings of losses."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["kd", "dkd", "dist", "attention", "cross_entropy"])
def test_the_example_of_a_loss(name):
    module = importlib.import_module(f"edgekd.distillation.methods.{name}")
    (found,) = (test for test in doctest.DocTestFinder().find(module) if test.examples)
    assert found.name.endswith(f".{name}")
    assert doctest.DocTestRunner().run(found).failed == 0
