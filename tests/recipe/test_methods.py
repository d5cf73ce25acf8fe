from __future__ import annotations

import subprocess
import sys

import pytest

from edgekd import plugins
from edgekd.errors import UnknownNameError, UsageError
from edgekd.recipe import methods
from edgekd.recipe.settings import TermSettings


@pytest.mark.parametrize("name", plugins.names("method"))
def test_every_method_has_what_the_reader_needs(name):
    method = methods.load(name)
    assert isinstance(method.on_features, bool)
    assert method.parameter_model.model_config["extra"] == "forbid"
    assert callable(method.check)


def test_losses_on_layers_are_told_from_those_on_logits():
    assert methods.load("attention").on_features and not methods.load("kd").on_features
    with pytest.raises(UsageError, match="layers"):
        methods.load("kd").check(TermSettings(method="kd", student_layers="a", teacher_layers="b"))


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown distillation method 'kdd'(?s:.)*did you mean"):
        methods.load("kdd")


def test_nothing_of_distillation_is_imported_before_a_method_is_looked_up():
    code = "import sys, edgekd.recipe.methods; assert not {'torch', 'edgekd.distillation'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
