"""What is wrong with a network or with its data is found before the first training."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch
from torchvision import models

import edgekd
from edgekd import pipeline
from edgekd.errors import DataError, ModelError, PreflightError, UsageError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.recipe.load import from_mapping

RECIPE = {
    "name": "tiny",
    "data": {
        "source": "digits",
        "image_size": 16,
        "limit": 320,
        "validation": 0.1,
        "test": 0.1,
        "augment": {"padding": 1},
    },
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 3, "batch_size": 32}},
    "student": {"model": "timm/test_efficientnet"},
    "distill": {"objective": [{"method": "kd", "temperature": 4}], "epochs": 2, "batch_size": 32},
    "prune": {"target": {"macs": 0.7}, "epochs": 1, "batch_size": 32},
    "quantize": {"epochs": 2, "batch_size": 32, "calibration_images": 64},
}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.arguments.width=0.5", "unexpected keyword argument 'width'"),
        ("student.checkpoint=weights.pth", "cannot be read as weights"),
        ("student.checkpoint=gone.pth", "does not exist"),
        ("student={model: torchvision/alexnet}", "AlexNet cannot compute images of 16x16"),
        ("prune.target.macs=0.01", "out of reach"),
    ],
)
def test_a_wrong_student_is_refused_before_the_teacher_is_trained(tmp_path, monkeypatch, override, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pth").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError) as planned:
        pipeline.plan(from_mapping(RECIPE, [override]), tmp_path / "runs/tiny")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ModelError) as caught:
        edgekd.run(RECIPE, overrides=[override])
    assert message in str(caught.value) and str(caught.value) == str(planned.value)
    # A checkpoint that is not there is found before even the data is read.
    stages = [path.name[:4] for path in (tmp_path / "runs/tiny").glob("stages/*")]
    assert stages == ([] if "gone" in override else ["data"])


def test_too_few_images_to_calibrate_on_are_found_before_any_training(tmp_path):
    with pytest.raises(DataError, match="too few images(?s:.)*12 in the training split(?s:.)*add training images"):
        edgekd.run(RECIPE, tmp_path, ["data.limit=12", "data.validation=0.01"])
    assert [path.name[:4] for path in (tmp_path / "stages").iterdir()] == ["data"]


class Told:
    """A console that keeps the warnings."""

    def __init__(self):
        self.warnings = []

    def progress(self, stage, done, total, note):
        raise AssertionError("a plan has no progress")

    def warn(self, message):
        self.warnings.append(message)


def test_all_mistakes_are_found_at_once(tmp_path):
    """Of the networks first; what is done with them is checked when they can be built."""
    networks = ["student.arguments.width=0.5", "teacher.arguments.blocks=3"]
    with pytest.raises(PreflightError) as caught:
        pipeline.plan(from_mapping(RECIPE, networks), tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 mistakes" and [line[:3] for line in lines if not line.startswith(" ")][1:] == ["1. ", "2. "]
    assert "blocks" in str(caught.value.errors[0]) and "width" in str(caught.value.errors[1])
    steps = ["prune.target.macs=0.01", "quantize.objective=[{method: fitnets, student_layers: x, teacher_layers: y}]"]
    with pytest.raises(PreflightError, match="out of reach(?s:.)*the student has no module 'x'"):
        pipeline.plan(from_mapping(RECIPE, steps), tmp_path)
    files = ["student.checkpoint=gone.pth", "teacher.checkpoint=lost.pth"]
    with pytest.raises(PreflightError, match="lost.pth does not exist(?s:.)*gone.pth does not exist"):
        pipeline.plan(from_mapping(RECIPE, files), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU trains it in bf16")
def test_a_precision_that_a_network_cannot_be_trained_in_is_refused_before_any_training(tmp_path):
    strided = ["student={model: torchvision/mobilenet_v2, stem: standard}", "distill.precision=bf16"]
    with pytest.raises(UsageError, match="wrong gradients on a CPU(?s:.)*at 16x16 pixels"):
        pipeline.plan(from_mapping(RECIPE, strided), tmp_path)


def test_a_quantized_student_may_learn_from_features(tmp_path):
    """Its quantizers have to see values before its layers can be looked at."""
    pipeline.plan(
        from_mapping(RECIPE, ["quantize.objective=[{method: relational}]"]),
        tmp_path,
    )


def test_a_layer_that_is_to_stay_in_float_must_be_there(tmp_path):
    student = "student.model=cifar/resnet8"
    with pytest.raises(ModelError, match=r"found: layer1.0.conv3(?s:.)*did you mean layer1.0.conv"):
        pipeline.plan(from_mapping(RECIPE, [student, "quantize.keep_float=[layer1.0.conv3]"]), tmp_path)
    pipeline.plan(from_mapping(RECIPE, [student, "quantize.keep_float=[conv1, 'layer?.0.add*']"]), tmp_path)
    with pytest.raises(ModelError, match="nothing of the network would be in int8"):
        pipeline.plan(from_mapping(RECIPE, [student, "quantize.keep_float=['*']"]), tmp_path)


def test_mistakes_of_usage_alone_have_its_exit_code():
    usage, other = UsageError("a", found="b"), ModelError("c")
    assert (PreflightError([usage, usage]).exit_code, PreflightError([usage, other]).exit_code) == (2, 1)
    assert str(PreflightError([usage, other])) == "2 mistakes\n1. a\n     found: b\n2. c"


@pytest.fixture
def photos(tmp_path):
    """A folder of files that are no images: whoever decodes them finds all broken."""

    def write(counts):
        for folder, count in counts.items():
            (tmp_path / "photos" / folder).mkdir(parents=True)
            for number in range(count):
                (tmp_path / "photos" / folder / f"{number}.png").write_bytes(b"no image")
        recipe = {**RECIPE, "data": {"source": "image-folder", "root": str(tmp_path / "photos"), "image_size": 16}}
        return pipeline.plan(from_mapping(recipe), tmp_path / "run", console=(told := Told())), told.warnings

    return write


def test_a_plan_lists_the_images_and_decodes_none(photos):
    planned, warnings = photos({"cat": 200, "dog": 300, "emu": 10})
    assert planned[0].why == (
        "not made yet: 367 train, 41 validation, 102 test, 3 classes in order of name, 16x16 pixels, validation and "
        "test split off from the training images"
    )
    assert warnings[0].startswith("1 of 3 classes has less than a tenth of the training images of dog")
    assert any("for 22 steps only" in warning for warning in warnings)


def test_a_plan_says_which_class_a_split_lacks(photos):
    _, warnings = photos({"train/cat": 40, "train/dog": 40, "val/cat": 9, "val/dog": 9, "test/cat": 9})
    assert warnings[0].startswith("The test split has no image of dog")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"cat": 40, "dog": 1}, "too few distinct images to be split(?s:.)*dog"),
        ({"train/cat": 40, "train/dog": 9, "val/cat": 9, "val/emu": 9}, "classes that train lacks(?s:.)*emu"),
        ({"cat": 40}, "one class only"),
        ({"cat": 6, "dog": 6}, "too few images to calibrate"),
    ],
)
def test_a_plan_refuses_images_that_cannot_be_used(photos, counts, message):
    with pytest.raises(DataError, match=message):
        photos(counts)


def test_images_that_are_not_downloaded_yet_leave_a_plan_with_a_word(tmp_path):
    data = {"source": "cifar10", "root": str(tmp_path), "download": True, "image_size": 32}
    planned = pipeline.plan(from_mapping({**RECIPE, "data": data}), tmp_path / "run", console=(told := Told()))
    assert planned[0].why == "not made yet" and "not downloaded yet" in told.warnings[0]
    assert not list(tmp_path.iterdir())


def test_weights_for_other_classes_are_refused_before_anything_is_trained_or_fetched(tmp_path):
    """Without training nothing would make up for a new last layer."""
    own = {"student": {"model": "torchvision/squeezenet1_1", "pretrained": True}, "distill": {"scheme": "none"}}
    recipe = {name: value for name, value in RECIPE.items() if name not in ("prune", "quantize")}
    with pytest.raises(
        ModelError, match=r"squeezenet1_1 has another number of classes(?s:.)*1,000 classes(?s:.)*10, as"
    ):
        pipeline.plan(from_mapping({**recipe, **own}), tmp_path)


def test_published_weights_that_cannot_be_fetched_are_found_before_any_training(tmp_path, monkeypatch):
    """A plan downloads nothing: it says what the run will need, and how it gets there."""

    def offline(self, **_):
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(models.SqueezeNet1_1_Weights, "get_state_dict", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    recipe = {**RECIPE, "student": {"model": "torchvision/squeezenet1_1", "pretrained": True}}
    del recipe["prune"], recipe["quantize"]
    pipeline.plan(from_mapping(recipe), tmp_path / "run", console=(told := Told()))
    (note,) = [warning for warning in told.warnings if "squeezenet" in warning]
    place = tmp_path / "home/hub/checkpoints"
    assert note.startswith("The run downloads the published weights of torchvision/squeezenet1_1.")
    assert f"put it at {place / 'squeezenet1_1-'}" in note
    with pytest.raises(
        ModelError,
        match=r"squeezenet1_1 cannot be fetched\n  found: URL(?s:.)*put it at .*/checkpoints/squeezenet1_1-",
    ):
        edgekd.run(recipe, tmp_path / "run")
    assert [path.name[:4] for path in (tmp_path / "run/stages").iterdir()] == ["data"]
    place.mkdir(parents=True)
    (place / models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]).touch()
    pipeline.plan(from_mapping(recipe), tmp_path / "run", console=(told := Told()))
    assert not [warning for warning in told.warnings if "squeezenet" in warning]


def test_a_device_without_int8_is_named_before_anything_is_quantized(tmp_path):
    recipe = from_mapping(RECIPE, ["bench.devices=[this-machine, jetson-nano-4gb]"])
    pipeline.plan(recipe, tmp_path / "run", console=(told := Told()))
    (note,) = [warning for warning in told.warnings if "int8" in warning]
    assert note.startswith("Jetson Nano 4GB computes in fp32, fp16: this device has no int8")


def test_more_threads_than_this_machine_has_are_refused_before_anything_is_made(tmp_path):
    for attempt in (edgekd.run, lambda recipe, out, sets: pipeline.plan(from_mapping(recipe, sets), out)):
        with pytest.raises(UsageError, match=r"bench.threads: 9999 are more threads(?s:.)*usable of"):
            attempt(RECIPE, tmp_path, ["bench.threads=9999"])
        with pytest.raises(UsageError, match=r"distill.threads: 9999 are more threads(?s:.)*usable of"):
            attempt(RECIPE, tmp_path, ["distill.threads=9999"])
    # Up to a stage that measures nothing, its number of threads is another machine's affair.
    pipeline.plan(from_mapping(RECIPE, ["bench.threads=9999"]), tmp_path, until="teacher")


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_plan_refuses_weights_with_nan(tmp_path, role):
    network = build(Architecture(model="cifar/resnet8", num_classes=10))
    torch.nn.init.constant_(network.linear.bias, float("nan"))
    torch.save({"state_dict": network.state_dict()}, tmp_path / "best.pth")
    recipe = {**RECIPE, role: {"model": "cifar/resnet8", "checkpoint": str(tmp_path / "best.pth")}}
    with pytest.raises(ModelError, match=r"best\.pth have values(?s:.)*linear\.bias has NaN in 10 of 10 values"):
        pipeline.plan(from_mapping(recipe), tmp_path / "run")
