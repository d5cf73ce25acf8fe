"""No images: the teacher's batch norms give them, and the student never sees a real one."""

from __future__ import annotations

import shutil
from dataclasses import replace

import chains
import numpy as np
import pytest

from edgekd import schemes
from edgekd.data import storage
from edgekd.data.dataset import Dataset, names_of, open_split
from edgekd.distillation import inversion
from edgekd.distillation.inversion import InversionSettings
from edgekd.errors import ArtifactError, DataError, ModelError, RecipeError, UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.schemes.data_free import Parameters, check_classes, compose, mirrors
from edgekd.stages import data as data_stage
from edgekd.stages import train as train_stage
from edgekd.store.plan import Plan
from edgekd.store.store import Store, resume_folder

CLAIM = "distill.scheme={name: data-free, images: 256, iterations: 40}"
NOISE = "distill.scheme={name: data-free, images: 256, iterations: 0}"
TINY = "distill.scheme={name: data-free, images: 20, iterations: 2, batch_size: 10}"
STEPS = "distill.epochs=20"


def test_a_teacher_without_batch_norms_is_refused_before_anything_is_made(stages, tmp_path):
    data = data_stage.data(stages())
    architecture = Architecture(model="timm/test_vit", arguments={"img_size": 16}, num_classes=10, small_stem=False)
    (tmp_path / "vit").mkdir()
    teacher = checkpoints.save(
        build(architecture),
        architecture,
        preprocessing=stages().recipe.data.preprocessing,
        classes=data.classes,
        out=tmp_path / "vit",
    )
    chain = replace(stages(TINY), store=Store(tmp_path / "run"))
    with pytest.raises(ModelError, match="no batch norms") as error:
        schemes.distill(chain, teacher, data)
    assert "offline" in str(error.value)
    assert not list(tmp_path.glob("run/partial/*/artifact.resume/*"))


@pytest.mark.slow
def test_a_student_of_synthetic_images_recognises_real_ones(stages, distilled, score):
    chain, noise = stages(CLAIM, STEPS), stages(NOISE, STEPS)
    data = data_stage.data(chain)
    learned, confused = score(distilled(chain).student, data), score(distilled(noise).student, data)
    images = next(done.artifact for done in chain.store.log if done.name == "inversion")
    assert images.metrics["teacher_agreement"] > 0.9
    assert learned > 0.6
    assert confused < learned - 0.3


def test_the_synthetic_set_has_made_images_to_train_on_and_real_ones_to_measure_on(stages, distilled):
    chain = stages(TINY, "distill.epochs=1")
    made = distilled(chain)
    data, teacher = data_stage.data(chain), train_stage.teacher(chain, data_stage.data(chain))
    synthetic = next(done.artifact for done in chain.store.log if done.name == "synthetic")
    assert synthetic.details.synthetic is True
    assert synthetic.details.teacher == teacher.digest
    assert synthetic.details.counts == {**data.details.counts, "train": 20}
    assert np.bincount(open_split(synthetic, "train").labels).tolist() == [2] * 10
    for name in ("validation", "test"):
        assert storage.pixels_file(synthetic.path, name).samefile(storage.pixels_file(data.path, name))
    assert names_of(synthetic, "test", [3]) == names_of(data, "test", [3]) != ["test[3]"]
    assert made.student.manifest.stage.inputs["data"] == synthetic.digest
    assert not made.others
    again = stages(TINY, "distill.epochs=1")
    distilled(again)
    assert {done.state for done in again.store.log} == {"reused"}


def test_destroyed_training_images_give_the_same_student(stages, distilled, tmp_path):
    chain = stages(TINY, "distill.epochs=1")
    data = data_stage.data(chain)
    teacher, expected = train_stage.teacher(chain, data), distilled(chain).student
    shutil.copytree(data.path, tmp_path / "destroyed")
    for file in (storage.pixels_file, storage.labels_file):
        path = file(tmp_path / "destroyed", "train")
        np.save(path, np.zeros_like(np.load(path)))
    destroyed = Dataset.seal(tmp_path / "destroyed", details=data.details)
    assert destroyed.digest != data.digest
    # In a store of its own, so that images and student are really made again.
    other = replace(chain, store=Store(tmp_path / "run"))
    assert schemes.distill(other, teacher, destroyed).student.manifest.files == expected.manifest.files
    assert [done.state for done in other.store.log] == ["run", "run", "run"]
    same = replace(chain, store=Store(chain.store.root))
    schemes.distill(same, teacher, destroyed)
    assert [(done.name, done.state) for done in same.store.log] == [
        ("inversion", "reused"),
        ("synthetic", "run"),
        ("distill", "reused"),
    ]


def test_finished_batches_survive_an_interruption(stages, tmp_path):
    chain = stages()
    teacher = train_stage.teacher(chain, data_stage.data(chain))
    settings = InversionSettings(images=20, iterations=2, batch_size=10)

    def make(name, progress=None):
        (tmp_path / name).mkdir(exist_ok=True)
        return inversion.synthesise(teacher, settings, tmp_path / name, flip=True, progress=progress)

    def cut(done, total, note):
        assert total == 4
        if done == 3:
            raise KeyboardInterrupt(note)

    with pytest.raises(KeyboardInterrupt, match="batch 2/2"):
        make("cut", cut)
    (kept,) = resume_folder(tmp_path / "cut").glob("*.npy")
    inode, steps = kept.stat().st_ino, []
    resumed = make("cut", lambda done, total, note: steps.append(done))
    assert kept.stat().st_ino == inode and steps == [3, 4]
    assert resumed.digest == make("whole").digest
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="damaged"):
        make("cut")


def test_real_splits_that_are_streamed_are_decoded(stages, tmp_path):
    chain = stages(TINY)
    data = data_stage.data(chain)
    schemes.distill(chain, train_stage.teacher(chain, data), data)
    images = next(done.artifact for done in chain.store.log if done.name == "inversion")
    streamed = data_stage.prepared(chain, "streamed", chain.recipe.data.model_copy(update={"storage": "streamed"}))
    (tmp_path / "set").mkdir()
    split = open_split(compose(images, streamed, tmp_path / "set"), "test")
    rows = np.arange(len(split))
    assert np.array_equal(split.pixels(rows), open_split(data, "test").pixels(rows))
    assert np.array_equal(split.labels, open_split(data, "test").labels)
    made = Dataset.load(tmp_path / "set")
    assert names_of(made, "test", [3]) == names_of(data, "test", [3])
    larger = data_stage.prepared(chain, "larger", chain.recipe.data.model_copy(update={"image_size": (24, 24)}))
    with pytest.raises(DataError, match="their teacher has another preprocessing"):
        compose(images, larger, tmp_path / "set")


def test_stored_outputs_are_those_for_the_synthetic_images(stages, distilled):
    chain = stages(TINY, "distill.epochs=1", "distill.teacher_outputs={store: on, views: 1}")
    distilled(chain)
    outputs = next(done.artifact for done in chain.store.log if done.name == "teacher-outputs")
    assert outputs.details.images == 20


def test_a_plan_writes_nothing(stages, tmp_path):
    plan = replace(stages(TINY), store=Plan(tmp_path / "plan"))
    data = data_stage.data(plan)
    schemes.distill(plan, train_stage.teacher(plan, data), data)
    assert [stage.name for stage in plan.store.stages] == ["data", "teacher", "inversion", "synthetic", "distill"]
    assert [stage.state for stage in plan.store.stages] == ["run", *["planned"] * 4]
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("parameter", "message"),
    [("iterations: -1", "iterations"), ("images: 0", "images"), ("batch_size: 1", "batch_size"), ("tv: 1.0", "tv")],
)
def test_wrong_parameters_are_one_clear_message(stages, parameter, message):
    with pytest.raises(RecipeError, match=message) as error:
        stages(f"distill.scheme={{name: data-free, {parameter}}}")
    assert len(error.value.problems) == 1


def test_fewer_images_than_classes_are_refused():
    with pytest.raises(UsageError, match="fewer images"):
        check_classes(Parameters(images=3), ("a", "b", "c", "d"))
    check_classes(Parameters(), ("a", "b"))


def test_images_are_mirrored_as_the_data_are(stages):
    assert not mirrors(stages().recipe.data)
    assert mirrors(stages("data.augment.flip=true").recipe.data)
    assert not mirrors(stages("data.augment.flip=null").recipe.data)


@pytest.mark.slow
def test_more_images_and_iterations_teach_better(stages, distilled, score):
    scheme = "distill.scheme={name: data-free, images: 384, iterations: 80, seed: 1}"
    chains = [stages(scheme, STEPS, f"distill.seed={seed}") for seed in (3, 4, 5)]
    data = data_stage.data(chains[0])
    assert np.mean([score(distilled(chain).student, data) for chain in chains]) > 0.8


def test_a_teacher_without_batch_norms_is_refused_before_it_is_trained(stages, distilled, tmp_path):
    vit = {"model": "timm/test_vit", "arguments": {"img_size": 16}, "train": {"epochs": 1}}
    chain = replace(stages(TINY, teacher=vit), store=Store(tmp_path))
    with pytest.raises(ModelError, match="no batch norms"):
        chains.checked(chain)
    assert [done.name for done in chain.store.log] == ["data"] and not list(
        tmp_path.glob("partial/teacher*/*.resume/*")
    )


def test_later_stages_see_synthetic_images_only(stages):
    later = {
        "student": {"model": "cifar/resnet8x2"},
        "prune": {"epochs": 1, "batch_size": 10, "multiple": 8},
        "quantize": {"epochs": 1, "batch_size": 10, "calibration_images": 16},
    }
    chain = stages(TINY, "distill.epochs=1", **later)
    chains.networks(chain)
    made = {done.name: done.artifact for done in chain.store.log}
    for name in ("distill", "recover", "calibrate", "quantize"):
        assert made[name].manifest.stage.inputs["data"] == made["synthetic"].digest
