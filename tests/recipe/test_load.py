from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from edgekd.errors import RecipeError, UnknownNameError, UsageError
from edgekd.recipe import load as recipe

GOOD = """\
name: shoes
data: {source: digits, image_size: 32}
teacher: {model: cifar/resnet20, train: {epochs: 2, learning_rate: 1e-1}}
student: {model: torchvision/mobilenet_v3_small}
"""
BAD = """\
name: bad
data:
  source: digit
  image_size: '32'
teacher: {model: cifar/resnet21, train: {epochs: 0}}
student:
  model: torchvison/mobilenet_v3_small
distil: {}
distill:
  objective:
    - {method: kdd}
    - {method: kd, temprature: 3, temperature: -1}
  epochs: true
  epochs: 3
bench: {devices: [jetson-orin-nano-9gb]}
"""


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_numbers_and_truth_values_are_read_as_people_mean_them(tmp_path):
    settings = recipe.load(_write(tmp_path, GOOD)).settings
    assert settings.teacher.train is not None and settings.teacher.train.learning_rate == 0.1
    assert settings.distill.objective[0].method == "kd"


def test_all_mistakes_at_once_each_with_line_found_allowed_and_nearest(tmp_path):
    path = _write(tmp_path, BAD)
    with pytest.raises(RecipeError) as caught:
        recipe.load(path)
    text = str(caught.value)
    for line, part in [
        (3, "data.source: unknown data source 'digit'"),
        (3, "did you mean 'digits'"),
        (4, 'data.image_size: must be a whole number from 8 to 1024, or two: [height, width]; found: "32"'),
        (5, "teacher.model: unknown model of cifar 'resnet21'"),
        (5, "teacher.train.epochs: must be above 0; found: 0"),
        (7, "unknown model source 'torchvison'"),
        (8, "distil: unknown key; did you mean 'distill'?"),
        (11, "distill.objective[0].method: unknown distillation method 'kdd'"),
        (12, "distill.objective[1].temprature: unknown parameter of kd; did you mean 'temperature'?"),
        (12, "distill.objective[1].temperature: must be at least 0.001; found: -1"),
        (14, "distill.epochs: repeated key (first in line 13)"),
        (15, "bench.devices[0]: unknown device 'jetson-orin-nano-9gb'"),
    ]:
        assert any(f":{line} " in problem and part in problem for problem in text.splitlines()), (line, part, text)
    assert caught.value.exit_code == 2
    assert len(caught.value.problems) == 11


def test_overrides_reach_sections_lists_and_new_keys(tmp_path):
    loaded = recipe.load(
        _write(tmp_path, GOOD),
        ["distill.epochs=7", "student.arguments.width_mult=0.5", "teacher.train.label_smoothing=0.1"],
    )
    assert loaded.settings.distill.epochs == 7
    assert loaded.settings.student.arguments == {"width_mult": 0.5}
    digits = recipe.load("digits", ["distill.objective.0.temperature=2"]).settings
    assert digits.distill.objective[0].parameters == {"temperature": 2}


def test_a_wrong_override_is_named_as_one(tmp_path):
    path = _write(tmp_path, GOOD)
    with pytest.raises(RecipeError, match="--set distill.epoch=7 distill.epoch: unknown key"):
        recipe.load(path, ["distill.epoch=7"])
    with pytest.raises(UsageError, match="no key=value"):
        recipe.load(path, ["distill.epochs"])
    with pytest.raises(UsageError, match=r"does not write out distill.objective(?s:.)*set the whole list"):
        recipe.load(path, ["distill.objective.0.temperature=2"])
    with pytest.raises(UsageError, match="has no item"):
        recipe.load(path, ["name.epochs=1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "not valid YAML"), ("- 1", "a mapping"), ("", "a mapping"), ("a: !!python/object:os.system {}", "YAML")],
)
def test_what_is_not_a_recipe_at_all(tmp_path, text, message):
    with pytest.raises(RecipeError, match=message):
        recipe.load(_write(tmp_path, text))


def test_an_unknown_recipe_names_the_built_in_ones(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        recipe.load("digit")
    with pytest.raises(UsageError, match="does not exist"):
        recipe.load("nowhere.yaml")
    with pytest.raises(UsageError, match="is a folder, not a file"):
        recipe.load(tmp_path)


def test_a_mapping_takes_paths_and_numpy_numbers_and_names_what_it_cannot_hold(tmp_path):
    values = yaml.safe_load(GOOD)
    values["data"] = {"source": "image-folder", "root": tmp_path, "image_size": np.int64(32)}
    values["teacher"]["train"] = {"epochs": np.int32(3), "learning_rate": np.float32(0.5)}
    settings = recipe.from_mapping(values).settings
    assert (settings.data.image_size, settings.teacher.train.epochs) == ((32, 32), 3)
    assert settings.teacher.train.learning_rate == 0.5
    values["export"] = {"variants": {"fp32"}}
    with pytest.raises(UsageError, match=r"a recipe cannot hold an object of type set\n  found: {'fp32'}"):
        recipe.from_mapping(values)


def test_every_built_in_recipe_is_valid_and_equal_to_its_mapping():
    assert "digits" in recipe.built_in()
    for name in recipe.built_in():
        loaded = recipe.load(name)
        again = recipe.from_mapping(yaml.safe_load(loaded.text))
        assert again.settings == loaded.settings


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (
            {"method": "attention", "student_layers": ["layer1"]},
            "compares layers of two networks, but layers of one network are set",
        ),
        ({"method": "kd", "student_layers": "a", "teacher_layers": "b"}, "kd is a loss on logits"),
        ({"method": "fitnets", "student_layers": ["a", "b"], "teacher_layers": "c"}, "2 student_layers, 1 teacher"),
        ({"method": "fitnets", "student_layers": 3, "teacher_layers": "c"}, "student_layers"),
        ({"method": "kd", "weight": -1}, "weight: must be above 0; found: -1"),
    ],
)
def test_what_a_term_states_about_layers_is_checked(term, message):
    with pytest.raises(RecipeError) as caught:
        recipe.from_mapping({**yaml.safe_load(GOOD), "distill": {"objective": [term]}})
    assert len(caught.value.problems) == 1 and message in caught.value.problems[0]


def test_the_command_names_the_folders_of_plugins_and_profiles(tmp_path, monkeypatch):
    (tmp_path / "mine" / "methods").mkdir(parents=True)
    monkeypatch.setenv("EDGEKD_PLUGINS", str(tmp_path / "mine"))
    monkeypatch.setenv("EDGEKD_PROFILES", str(tmp_path))
    assert recipe.load("digits").command == f"edgekd --plugins {tmp_path / 'mine'} --profiles {tmp_path} run digits"


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("self", "write scheme: born-again"),
        ("{name: self, kind: last-epoch, share: 0.5}", "found: kind: last-epoch; allowed: born-again, last-epoch"),
        ("{name: self, kind: teacher-free}", "write scheme: teacher-free"),
        ("{name: self, kind: reborn}", "found: kind: reborn; allowed: born-again, last-epoch, teacher-free"),
    ],
)
def test_a_scheme_of_an_earlier_version_is_refused_by_the_names_it_has_now(tmp_path, scheme, message):
    text = f"name: x\ndata: {{source: digits}}\nstudent: {{model: cifar/resnet8}}\ndistill:\n  scheme: {scheme}\n"
    with pytest.raises(RecipeError, match="the scheme 'self' is now one scheme per kind") as caught:
        recipe.load(_write(tmp_path, text))
    (problem,) = caught.value.problems
    assert ":5 distill.scheme" in problem and message in problem
