from __future__ import annotations

import doctest
import html

import pytest
from PIL import Image

import edgekd
from edgekd.errors import DataError, UsageError
from edgekd.recipe.load import from_mapping

RECIPE = {
    "name": "shoes",
    "data": {"source": "digits", "image_size": 16, "limit": 128},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1, "batch_size": 64}},
    "student": {"model": "cifar/resnet8"},
}


def test_a_mapping_and_a_checked_recipe_are_the_same_run_in_the_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = edgekd.train(RECIPE, overrides=["teacher.train.batch_size=32"])
    assert made.path.parts[:3] == ("runs", "shoes", "stages")
    again = edgekd.train(from_mapping(RECIPE, ["teacher.train.batch_size=32"]))
    assert again.path == made.path and len(list((tmp_path / "runs/shoes/stages").glob("teacher-*"))) == 1


def test_overrides_of_a_checked_recipe_are_refused_instead_of_ignored(tmp_path):
    with pytest.raises(UsageError, match=r"already checked\n  found: distill.epochs=2"):
        edgekd.run(from_mapping(RECIPE), tmp_path, ["distill.epochs=2"])


@pytest.mark.parametrize("overrides", ["distill.epochs=2", {"distill.epochs": 2}, [2]])
def test_overrides_that_are_not_a_list_of_strings(overrides, tmp_path):
    with pytest.raises(UsageError, match="overrides must be a list of strings"):
        edgekd.run(RECIPE, tmp_path, overrides)


@pytest.mark.parametrize("source", [3, None, [RECIPE], b"digits"])
def test_what_is_not_a_recipe(source, tmp_path):
    with pytest.raises(UsageError, match=f"not a recipe\n  found: an object of type {type(source).__name__}"):
        edgekd.run(source, tmp_path)


@pytest.mark.parametrize("verb", ["prune", "quantize"])
def test_a_verb_without_its_section_states_how_to_begin_one(verb, tmp_path):
    with pytest.raises(UsageError, match=f"has no {verb} section"):
        getattr(edgekd, verb)(RECIPE, tmp_path)


def test_evaluate_opens_the_bundle_as_asked(linear_bundle, tmp_path):
    (tmp_path / "own" / "green").mkdir(parents=True)
    Image.new("RGB", (8, 8), (0, 250, 0)).save(tmp_path / "own" / "green" / "a.png")
    found = edgekd.evaluate(str(linear_bundle), tmp_path / "own", variant="fp32", backend="onnxruntime")
    assert (found.accuracy, found.samples) == (1.0, 1)
    with pytest.raises(DataError, match="is not a folder"):
        edgekd.evaluate(linear_bundle, tmp_path / "nowhere")


def test_the_example_of_run_works_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(edgekd.run, "run", globs={})
    shown: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=shown.append, clear_globs=False)
    assert result.attempted > 1 and result.failed == 0, "".join(shown)
    made = example.globs["result"]
    headline, *paths = str(made).splitlines()
    assert headline in html.unescape(made.report.read_text()) and len(headline) < 300
    assert paths == [f"Report  {made.report}", f"Bundle  {made.bundle}"]
    assert len(repr(made)) < 1000 and repr(made.bundle) in repr(made)
    assert (tmp_path / "runs" / "tiny" / "report.json").is_file()
