"""Few labels, many images."""

from __future__ import annotations

import shutil
from dataclasses import replace

import chains
import numpy as np
import pytest
import torch
from PIL import Image

from edgekd import schemes
from edgekd.data import storage
from edgekd.data.dataset import Dataset, open_split
from edgekd.data.leaks import contents
from edgekd.data.loader import Batch
from edgekd.distillation.objective import Outputs
from edgekd.distillation.partly_labelled import PartlyLabelled
from edgekd.distillation.terms import Networks, build_terms
from edgekd.errors import DataError, RecipeError
from edgekd.recipe.settings import TermSettings
from edgekd.schemes._selection import Selection
from edgekd.schemes.semi_supervised import Mixing
from edgekd.stages import data as data_stage
from edgekd.stages import prune
from edgekd.stages import train as train_stage
from edgekd.store.plan import Plan
from edgekd.store.store import Store

FEW = "distill.scheme={name: semi-supervised, labels: 50}"
SMALL = ("data.limit=300", "teacher.train.epochs=1", "distill.epochs=1", "distill.scheme.confidence=0.0")
KD = "distill.objective=[{method: kd}]"


def terms(*methods: str) -> PartlyLabelled:
    built = build_terms([TermSettings(method=name) for name in methods], Networks(torch.nn.Identity(), None, 8, 8, 10))
    return PartlyLabelled(built.each)


def selection_of(chain) -> Selection:
    return next(done.artifact for done in reversed(chain.store.log) if done.name == "selection")


def test_both_networks_see_the_same_mixture():
    seen_by: dict[str, torch.Tensor] = {}

    class Student(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen_by["student"] = images
            return images.mean((2, 3))

    def teacher(batch: Batch) -> Outputs:
        seen_by["teacher"] = batch.images
        return Outputs(batch.images.mean((2, 3)))

    images = torch.arange(64.0)[:, None, None, None].expand(64, 3, 4, 4)
    batch = Batch(images, torch.full((64,), -1), torch.arange(64))
    torch.manual_seed(0)
    Mixing(Student(), teacher, terms("kd"))(Student(), batch)
    torch.manual_seed(0)
    share, others = torch.rand(64, 1, 1, 1), images[torch.randperm(64)]
    assert seen_by["student"].equal(seen_by["teacher"])
    assert seen_by["student"].allclose(share * images + (1 - share) * others)


def test_five_labels_per_class_and_the_rest_without(stages, distilled):
    chain = stages(*SMALL, FEW)
    made, data = distilled(chain), data_stage.data(chain)
    found, counts = made.student.metrics["images"], data.details.counts
    assert found["labelled"] == 50 and found["pool"] == counts["train"] - 50
    assert made.others["labelsonly"].details.training.labels == 50
    assert made.titles == {"labelsonly": "Labels only"}
    selection = selection_of(chain)
    assert not selection.labelled(data).labels.min() < 0 and set(selection.unlabelled(data, None).labels) == {-1}
    again = stages(*SMALL, FEW)
    assert distilled(again).student.digest == made.student.digest
    assert {done.state for done in again.store.log} == {"reused"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "labels", "epochs", "least"),
    [("cifar/resnet8", 50, 4, 0.05), ("torchvision/shufflenet_v2_x0_5", 200, 8, 0.03)],
)
def test_the_gain_over_three_draws_of_labels(stages, distilled, score, model, labels, epochs, least):
    """A mobile network needs labels more than a small ResNet does: 20 per class are few for it, 5 for the other."""
    gains = []
    for seed in range(3):
        scheme = f"distill.scheme={{name: semi-supervised, labels: {labels}}}"
        settings = (f"data.seed={seed}", f"distill.seed={seed}", f"distill.epochs={epochs}", f"student.model={model}")
        chain = stages(scheme, *settings)
        made, data = distilled(chain), data_stage.data(chain)
        gains.append(score(made.student, data) - score(made.others["labelsonly"], data))
    assert np.mean(gains) >= least and min(gains) > 0, gains


def test_function_matching_without_labels_approaches_the_teacher(stages, distilled, score):
    chain = stages("distill.scheme={name: semi-supervised, labels: 0, mix: true}", KD, "distill.epochs=6")
    made, data = distilled(chain), data_stage.data(chain)
    assert score(made.student, data) > score(train_stage.teacher(chain, data), data) - 0.05
    assert not made.others and made.student.metrics["images"]["labelled"] == 0


def test_what_a_limit_leaves_out_is_the_pool(stages, distilled):
    small = ("data.limit=60", "distill.epochs=1", "teacher.train.epochs=1", "distill.scheme.confidence=0.0")
    chain = stages("distill.scheme={name: semi-supervised, alone: false}", *small)
    made, data, everything = distilled(chain), data_stage.data(chain), data_stage.data(stages())
    found = made.student.metrics["images"]
    limited, all_of_it = (open_split(d, "train") for d in (data, everything))
    known = set(contents(limited))
    left_out = [digest for digest in contents(all_of_it) if digest not in known]
    pool = next(done.artifact for done in chain.store.log if done.name == "unlabelled")
    assert contents(selection_of(chain).unlabelled(data, pool)) == left_out
    assert found["labelled"] == 60 and found["known"] == len(all_of_it) - len(left_out) and not made.others


def test_a_folder_gives_images_but_none_that_is_measured_or_labelled(stages, distilled, tmp_path):
    data = data_stage.data(stages())
    save_images(open_split(data, "train"), range(30), tmp_path / "deep" / "er")
    save_images(open_split(data, "test"), range(2), tmp_path / "test")
    save_images(open_split(data, "validation"), range(1), tmp_path)
    scheme = f"distill.scheme={{name: semi-supervised, labels: 50, unlabelled: {tmp_path}, alone: false}}"
    chain = stages(scheme, "distill.scheme.confidence=0.0", "distill.epochs=1")
    made = distilled(chain)
    found = made.student.metrics["images"]
    assert found["pool"] == 33 and found["held_out"] == 3 and found["unlabelled"] == 30 - found["known"]
    assert any("3 equal to a validation or test image" in line for line in made.student.metrics["warnings"])
    pool = next(done.artifact for done in chain.store.log if done.name == "unlabelled")
    kept = set(contents(selection_of(chain).unlabelled(data, pool)))
    assert not kept & {digest for name in ("validation", "test") for digest in contents(open_split(data, name))}


def test_images_of_low_teacher_confidence_are_left_out_and_reported(stages, distilled):
    chain = stages(
        "distill.scheme={name: semi-supervised, labels: 50, confidence: 0.9, balance: true, alone: false}",
        "distill.epochs=1",
    )
    made = distilled(chain)
    found = made.student.metrics["images"]
    assert found["unsure"] > 0 and "teacher confidence below the threshold" in made.student.metrics["warnings"][0]
    assert len(set(found["classes"].values())) == 1 and sum(found["classes"].values()) == found["unlabelled"]


def save_images(split, rows, folder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for row, pixels in zip(rows, split.pixels(np.array(rows)), strict=True):
        Image.fromarray(pixels).save(folder / f"{row}.png")


class Killed(Exception):
    pass


class Killer:
    """A console that ends the run in the second epoch of the student's training."""

    def progress(self, stage: str, done: int, total: int, note: str) -> None:
        if stage == "distill" and note.startswith("epoch 2"):
            raise Killed


def test_an_interrupted_training_ends_in_the_same_bits(stages, distilled, tmp_path):
    chain = stages(
        "distill.scheme={name: semi-supervised, labels: 0, mix: true, confidence: 0.0}",
        *(KD, "distill.epochs=2", "data.limit=200", "teacher.train.epochs=1"),
    )
    killed = replace(chain, store=Store(tmp_path), console=Killer())
    with pytest.raises(Killed):
        distilled(killed)
    resumed = replace(chain, store=Store(tmp_path))
    assert distilled(resumed).student.digest == distilled(chain).student.digest


def test_a_plan_writes_nothing(stages, tmp_path):
    chain = stages(FEW)
    plan = replace(chain, store=Plan(tmp_path / "plan"))
    data = data_stage.data(plan)
    schemes.distill(plan, train_stage.teacher(plan, data), data)
    assert [stage.name for stage in plan.store.stages] == ["data", "teacher", "selection", "distill", "labelsonly"]
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["distill.scheme=semi-supervised"], "no unlabelled images"),
        (["distill.scheme={name: semi-supervised, unlabelled: no/where}"], "no/where is not a folder"),
        (["distill.scheme={name: semi-supervised, labels: 0}"], "cross_entropy needs labels, and with labels: 0"),
        ([FEW, "distill.scheme.mix=true"], "cross_entropy needs labels, and with mix"),
        ([FEW, "distill.objective=[{method: dkd}]"], "learns nothing from unlabelled images"),
        ([FEW, "distill.objective=[{method: kd}, {method: crd}]"], "crd stores single images"),
        ([FEW, "quantize.objective=[{method: dkd}]"], "dkd in quantize.objective needs labels"),
        ([FEW, "distill.scheme.confidence=1.0"], "must be below 1"),
        ([FEW, "distill.scheme.labls=3"], "did you mean 'labels'"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(stages, overrides, message):
    with pytest.raises(RecipeError, match=message) as caught:
        stages(*overrides)
    assert len(caught.value.problems) == 1


def test_wrong_numbers_of_labels_are_refused_before_the_teacher_is_trained(stages, distilled, tmp_path):
    for count in (9, 100_000):
        chain = stages(f"distill.scheme={{name: semi-supervised, labels: {count}}}")
        chain = replace(chain, store=Store(tmp_path))
        with pytest.raises(DataError, match="distill.scheme.labels"):
            chains.checked(chain)
        assert [done.name for done in chain.store.log] == ["data"]


def test_recovery_does_not_depend_on_hidden_labels(stages, tmp_path):
    small = ("distill.epochs=1", "data.limit=200", "teacher.train.epochs=1", "distill.scheme.alone=false")
    student = {"model": "torchvision/mobilenet_v3_small"}
    chain = stages(FEW, *small, student=student, prune={"epochs": 1, "batch_size": 32, "multiple": 8})
    data = data_stage.data(chain)
    made = chains.networks(chain)
    objective = made.pruned.recovered.manifest.stage.settings["objective"]
    assert [term["method"] for term in objective] == ["kd"]
    shutil.copytree(data.path, tmp_path / "set")
    file = storage.labels_file(tmp_path / "set", "train")
    np.save(file, 9 - np.load(file))
    wrong = Dataset.seal(tmp_path / "set", details=data.details)
    other = replace(chain, store=Store(tmp_path / "run"))
    further = replace(made.continuation, data=wrong)
    again = prune.recovered(other, made.pruned.pruned, chain.recipe.prune, further)
    assert wrong.digest != data.digest and again.manifest.files == made.pruned.recovered.manifest.files
