"""Tasks with images of their own: none that measures one task trains another."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from edgekd.data.dataset import Dataset, open_split
from edgekd.data.leaks import contents, measured_contents
from edgekd.errors import DataError, RecipeError
from edgekd.schemes._tasks import without_shared_images
from edgekd.stages import data as data_stage


@pytest.fixture(scope="module")
def sorted_twice(tmp_path_factory):
    """The same 120 images in two folders, by how light and by how red they are; 40 more in the second."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(160):
        light, red = bool(number % 2), bool(number // 2 % 2)
        shade = (
            random.integers(0, 100, (16, 16, 3)) + 150 * light * np.array([0, 1, 1]) + 150 * red * np.array([1, 0, 0])
        )
        for task, name in (("lightness", f"{light}"), ("redness", f"{red}")):
            if number < 120 or task == "redness":
                (root / task / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(shade.astype(np.uint8)).save(root / task / name / f"{number}.png")
    return root


def _photos(root, storage="cached", seed=0):
    return {"source": "image-folder", "root": str(root), "image_size": 16, "storage": storage, "seed": seed}


def _measured_and_trained(by, main, own):
    held_out = measured_contents(by[main])
    return [digest in held_out for digest in contents(open_split(by[own], "train"))]


@pytest.mark.parametrize("storage", ["cached", "streamed"])
def test_no_evaluation_image_of_one_task_is_a_training_image_of_another(stages, distilled, sorted_twice, storage):
    weak = {"model": "cifar/resnet8", "train": {"epochs": 1, "batch_size": 32, "precision": "fp32"}}
    own = {"data": _photos(sorted_twice / "redness", storage, seed=1), "teacher": weak}
    scheme = {"name": "multi-task", "single": False, "tasks": {"redness": own}}
    distill = {"epochs": 1, "batch_size": 32, "precision": "fp32", "scheme": scheme}
    chain = stages(data=_photos(sorted_twice / "lightness", storage), teacher=weak, distill=distill)
    made = distilled(chain)
    by = {done.name: done.artifact for done in chain.store.log}
    shared = sum(_measured_and_trained(by, "data", "data-redness"))
    assert shared > 10 and not any(_measured_and_trained(by, "data", "apart-redness"))
    before, after = (by[name].details.counts for name in ("data-redness", "apart-redness"))
    assert after == {**before, "train": before["train"] - shared}
    assert sum(by["apart-redness"].metrics["classes"]["train"].values()) == after["train"]
    left_out, stays = made.student.metrics["warnings"][-2:]
    assert left_out.startswith(f"redness: {shared} training images were left out: also in main's validation")
    assert stays.startswith(f"redness: {sum(_measured_and_trained(by, 'data-redness', 'data'))} of main's training")
    assert by["teacher-redness"].manifest.stage.inputs["data"] == by["apart-redness"].digest


def test_training_images_that_are_all_in_other_tasks_evaluation_splits_are_refused(stages, sorted_twice, tmp_path):
    data = data_stage.data(stages(data=_photos(sorted_twice / "lightness")))
    _all_from(data, "test", tmp_path / "copy")
    with pytest.raises(DataError, match="no training image of False"):
        without_shared_images("b", Dataset.load(tmp_path / "copy"), "a", {"a": data}, tmp_path)


def _all_from(data, split, out):
    """A copy whose training images are those of another split."""
    shutil.copytree(data.path, out)
    for suffix in (".npy", "-labels.npy"):
        shutil.copyfile(data.path / f"{split}{suffix}", out / f"train{suffix}")
    Dataset.seal(out, details=data.details, metrics=data.metrics)


def test_one_folder_under_two_paths_is_one(stages, sorted_twice, tmp_path):
    (tmp_path / "link").symlink_to(sorted_twice / "lightness")
    own = {"data": _photos(tmp_path / "link", seed=1), "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}}}
    scheme = {"name": "multi-task", "tasks": {"again": own}}
    with pytest.raises(RecipeError, match="in another split"):
        stages(data=_photos(sorted_twice / "lightness"), distill={"scheme": scheme})
