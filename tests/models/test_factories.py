"""From Python: a function that builds a network is named by its file, or refused."""

from __future__ import annotations

import functools
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

import edgekd
from edgekd.errors import UsageError
from edgekd.models.factories import reference_to
from edgekd.recipe.load import from_mapping

RECIPE = {
    "name": "own",
    "data": {"source": "digits", "image_size": 16, "limit": 256, "validation": 0.1, "test": 0.1},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1, "batch_size": 32}},
    "student": {},
}


@pytest.fixture
def module(nets, monkeypatch):
    """The file, imported as a user's program does it."""
    spec = spec_from_file_location("nets_of_a_user", nets)
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "nets_of_a_user", module)
    spec.loader.exec_module(module)
    return module


def test_a_function_is_named_by_its_file(module, nets):
    assert str(reference_to(module.build)) == f"{nets}:build"


def test_a_run_from_python_trains_it_and_carries_its_file(module, nets, tmp_path):
    recipe = {**RECIPE, "teacher": {"train": {"epochs": 1, "batch_size": 32}}, "student": {"model": "cifar/resnet8"}}
    checkpoint = edgekd.train(recipe, tmp_path / "run", models={"teacher": module.build})
    copies = [name for name in checkpoint.manifest.files if name.startswith("code/")]
    assert len(copies) == 1 and (checkpoint.path / copies[0]).read_bytes() == nets.read_bytes()


def test_other_code_in_the_recipe_is_not_allowed_with_it(module, nets, tmp_path):
    other = tmp_path / "other.py"
    other.write_text("def build(num_classes): ...\n")
    recipe = {**RECIPE, "teacher": {"model": f"{other}:build", "train": {"epochs": 1}}}
    with pytest.raises(UsageError, match="--allow-code") as raised:
        edgekd.train(recipe, tmp_path / "run", models={"student": module.build})
    assert str(other) in str(raised.value) and str(nets) not in str(raised.value)


def test_a_checked_recipe_takes_no_other_models(module):
    checked = from_mapping({**RECIPE, "student": {"model": "cifar/resnet8"}})
    with pytest.raises(UsageError, match="already checked"):
        edgekd.train(checked, models={"student": module.build})


def _nested():
    def build(num_classes): ...

    return build


def _typed_in():
    """What a session without a file makes of a function."""
    space = {"__name__": "typed_in"}
    exec("def build(num_classes): ...", space)
    return space["build"]


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda num_classes: None, "a lambda"),
        (_nested(), "a nested function"),
        (functools.partial(_nested), "an object without a name"),
        (_typed_in(), r"not a \.py file"),
        ("nets.py:build", "an object without a name"),
    ],
    ids=["lambda", "nested", "partial", "interactive", "text"],
)
def test_what_no_file_can_rebuild_is_refused(factory, message):
    with pytest.raises(UsageError, match=rf"cannot build a recipe's network\n  found: .*{message}"):
        reference_to(factory)


def test_a_function_that_its_file_does_not_have_is_refused(module):
    own = module.build
    module.build = functools.wraps(own)(lambda *a, **k: own(*a, **k))
    with pytest.raises(UsageError, match="has another object of this name"):
        reference_to(own)
