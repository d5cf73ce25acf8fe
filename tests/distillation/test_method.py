"""The contract of a method, on plugin files in a temporary folder."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from edgekd import plugins
from edgekd.distillation.method import Method, method_named
from edgekd.errors import PluginError, UnknownNameError, UsageError
from edgekd.recipe.settings import TermSettings

FLAGS = ("needs_labels", "whole_row", "signed", "changes_student")
LOSS = "def mine(student_logits, teacher_logits, targets=None, *, heat: float = 2.0, scaled: bool = False): ...\n"
ON_FEATURES = "def mine(student_feature, teacher_feature): ...\n"
MODULE = """class Mine(nn.Module):
    def __init__(self, student_shape, teacher_shape, *, width: int = 4): super().__init__()
    def forward(self, student_feature, teacher_feature): ...
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A function from a file's text to its method, loaded as a plugin of the user's."""
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path))
    (tmp_path / "methods").mkdir()

    def load(text: str) -> Method:
        code = f"from torch import nn\nfrom edgekd.distillation.method import Method\n{text}"
        (tmp_path / "methods" / "mine.py").write_text(code)
        return method_named("mine")

    return load


def test_what_others_need_comes_from_the_members_and_the_signature(made):
    method = made(f"{LOSS}METHOD = Method(function=mine, temperature='heat', standardize='scaled')")
    assert method.name == "mine"
    assert method.inputs == ("student_logits", "teacher_logits", "targets") and method.needs_teacher
    assert not (method.on_features or method.takes_all_taps or method.needs_labels or method.changes_student)
    assert list(method.parameter_model.model_fields) == ["heat", "scaled"]
    hot, plain = TermSettings(method="mine", heat=3.0, scaled=True), TermSettings(method="mine")
    assert (method.temperature_of(hot), method.standardizes(hot)) == (3.0, True)
    assert (method.temperature_of(plain), method.standardizes(plain)) == (2.0, False)
    with pytest.raises(ValidationError, match="heat"):
        method.check(TermSettings(method="mine", heat="warm"))
    with pytest.raises(UsageError, match="loss on logits"):
        method.check(TermSettings(method="mine", student_layers="a", teacher_layers="b"))


def test_a_class_is_built_from_the_parameters_in_its_signature(made):
    method = made(f"{MODULE}METHOD = Method(module=Mine, taps='last')")
    assert method.shape_inputs == ("student_shape", "teacher_shape") and method.on_features
    assert method.inputs == ("student_feature", "teacher_feature")
    with pytest.raises(UsageError, match="layers of one network are set"):
        method.check(TermSettings(method="mine", student_layers="a"))
    with pytest.raises(UsageError, match="2 student_layers, 1 teacher_layers"):
        method.check(TermSettings(method="mine", student_layers=["a", "b"], teacher_layers=["c"]))


def test_a_parameter_without_a_default_has_to_be_set(made):
    text = "def mine(student_logits, *, margin: float): ...\nMETHOD = Method(function=mine)"
    method = made(text)
    with pytest.raises(ValidationError, match="required"):
        method.check(TermSettings(method="mine"))
    method.check(TermSettings(method="mine", margin=0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{LOSS}METHOD = Method(function=mine, need_labels=True)", "'need_labels'(?s:.)*did you mean 'needs_labels'"),
        (f"{LOSS}METHOD = Method(mine)", "members are given by name"),
        ("METHOD = Method(needs_labels=True)", "a function, a class, or both"),
        (f"{LOSS}METHOD = Method(function='mine')", "function='mine', of type str(?s:.)*a function or None"),
        (f"{LOSS}METHOD = Method(module=mine)", "module=<function mine(?s:.)*a subclass of Module or None"),
        (f"{LOSS}METHOD = Method(function=mine, whole_row='yes')", "whole_row='yes', of type str(?s:.)*True or False"),
        (f"{LOSS}METHOD = Method(function=mine, temperature=2.0)", "temperature=2.0, of type float(?s:.)*text or None"),
        (
            f"{ON_FEATURES}METHOD = Method(function=mine, taps='deepest')",
            "taps='deepest', of type str(?s:.)*'last'",
        ),
        (f"{LOSS}mine.__name__ = 'other'\nMETHOD = Method(function=mine)", "another name(?s:.)*other(?s:.)*mine"),
        (f"{MODULE}Mine.__name__ = 'M'\nMETHOD = Method(module=Mine, taps='last')", "the class has another name"),
        ("from edgekd.distillation.methods.kd import kd\nMETHOD = Method(function=kd)", "another name(?s:.)*kd"),
        (f"{LOSS}METHOD = Method(function=mine, temperature='heta')", "'heta'(?s:.)*did you mean 'heat'"),
        (f"{LOSS}METHOD = Method(function=mine, standardize='standardize')", "that is not in the signature"),
        (f"{ON_FEATURES}METHOD = Method(function=mine)", "needs taps: which layers it compares"),
        (f"{LOSS}METHOD = Method(function=mine, taps='last')", "taps is for losses with features as inputs"),
        (f"{ON_FEATURES}METHOD = Method(function=mine, taps='last', needs_labels=True)", "needs_labels is for"),
        (f"{ON_FEATURES}METHOD = Method(function=mine, taps='last', whole_row=True)", "whole_row is for"),
        (f"{ON_FEATURES}METHOD = Method(function=mine, taps='last', changes_student=True)", "changes_student is for"),
        ("def mine(student_logit): ...\nMETHOD = Method(function=mine)", "'student_logit'(?s:.)*'student_logits'"),
        ("def mine(student_feature, teacher_features): ...\nMETHOD = Method(function=mine, taps='last')", "not both"),
        (f"{MODULE.replace('student_shape', 'shape')}METHOD = Method(module=Mine, taps='last')", "built from 'shape'"),
        ("def mine(student_logits, *, k=1): ...\nMETHOD = Method(function=mine)", "parameter k has no type"),
        ("def mine(student_logits, *, k: 'Gone' = 1): ...\nMETHOD = Method(function=mine)", "cannot be checked"),
        (
            "def mine(student_logits, *, k: int = 'one'): ...\nMETHOD = Method(function=mine)",
            "parameter k is not of its type(?s:.)*'one'",
        ),
        ("def mine(student_logits, *, weight: float = 1.0): ...\nMETHOD = Method(function=mine)", "key already"),
    ],
)
def test_a_wrong_declaration_is_an_error_that_names_the_file(made, tmp_path, text, message):
    with pytest.raises(PluginError, match=message) as caught:
        made(text)
    assert str(tmp_path / "methods" / "mine.py") in str(caught.value)


@pytest.mark.parametrize("name", plugins.names("method"))
def test_contract_each_file_exports_a_method_of_its_name(name):
    method = method_named(name)
    assert method.name == name
    assert (method.standardize is None) == ("standardize" not in method.parameter_model.model_fields)
    # What crd calls its temperature divides similarities of embeddings, not the teacher's outputs.
    assert (method.temperature is None) == ("temperature" not in method.parameter_model.model_fields or name == "crd")


def test_methods_with_rare_properties():
    declared = {flag: {n for n in plugins.names("method") if getattr(method_named(n), flag)} for flag in FLAGS}
    assert declared == {
        "needs_labels": {"binary_cross_entropy", "cross_entropy", "dkd", "nkd"},
        "whole_row": {"interpolated", "mse", "wttm"},
        "signed": {"variational"},
        "changes_student": {"simkd"},
    }


def test_an_unknown_method_and_a_wrong_parameter():
    with pytest.raises(UnknownNameError, match="did you mean 'mse'"):
        method_named("msee")
    with pytest.raises(ValueError, match="temperatur"):
        method_named("kd").check(TermSettings(method="kd", temperatur=2.0))
