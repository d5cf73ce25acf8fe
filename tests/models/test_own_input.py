"""Weights that come with a description of their input: a student's becomes the data's, a teacher is given its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from edgekd import pipeline, schemes
from edgekd.errors import ModelError
from edgekd.export.model_id import ModelId
from edgekd.export.onnx import graph_of
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.cost import cost
from edgekd.models.onnx_graph import Signature
from edgekd.models.own_input import check_student, own_input, seen_by_onnx
from edgekd.recipe.load import from_mapping
from edgekd.recipe.settings import ModelSettings, RecipeSettings, TeacherSettings
from edgekd.report.result import Result
from edgekd.runtime import load
from edgekd.runtime.preprocess import InputShape, Preprocessing
from edgekd.training.start import start

CLASSES = ("lying", "standing")
STEPS = {"epochs": 1, "batch_size": 16, "precision": "fp32"}


def hub(folder: Path, model: str = "test_efficientnet", labels: tuple[str, ...] = CLASSES, **seen: Any) -> Path:
    """A folder as timm writes it, with random weights."""
    folder.mkdir()
    torch.manual_seed(0)
    network = build(Architecture(model=f"timm/{model}", num_classes=2))
    save_file(network.state_dict(), folder / "model.safetensors")
    published = {"input_size": [3, 48, 32], "mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 0.8, **seen}
    described = {"architecture": model, "label_names": list(labels), "pretrained_cfg": published}
    (folder / "config.json").write_text(json.dumps(described))
    return folder


def teacher_in(made: Result) -> Checkpoint:
    """The teacher among the networks that a run has made."""
    return next(network for role, network in made.networks.items() if role.name == "teacher")


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    """Images of 40x80 with a lying or a standing bar."""
    random = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "bars" / name).mkdir(parents=True)
        for number in range(40):
            pixels = random.integers(0, 60, (40, 80, 3), dtype=np.uint8)
            row, column = random.integers(4, 30, 2)
            part = (
                (slice(row, row + 5), slice(4, 76)) if name == "lying" else (slice(2, 38), slice(column, column + 10))
            )
            pixels[part] = random.integers(150, 255, 3)
            Image.fromarray(pixels).save(tmp_path / "bars" / name / f"{number}.png")
    return tmp_path / "bars"


def settings(data: dict[str, Any], student: dict[str, Any], **sections: Any) -> RecipeSettings:
    recipe = {"name": "x", "data": {"source": "digits", **data}, "student": student, "distill": {"scheme": "none"}}
    return from_mapping({**recipe, **sections}).settings


def test_the_data_take_what_the_students_weights_come_with(tmp_path: Path) -> None:
    student = {"model": "timm/test_efficientnet", "checkpoint": str(hub(tmp_path / "hub", interpolation="bicubic"))}
    seen = schemes.adapted(settings({}, student)).data.preprocessing
    assert seen == Preprocessing((48, 32), (60, 40), (0.5,) * 3, (0.25,) * 3, "bicubic")
    seen = schemes.adapted(settings({"image_size": 24, "interpolation": "bilinear"}, student)).data.preprocessing
    assert seen == Preprocessing((24, 24), (30, 30), (0.5,) * 3, (0.25,) * 3)
    seen = schemes.adapted(settings({"mean": [0.0] * 3}, student)).data.preprocessing
    assert (seen.mean, seen.std) == ((0.0,) * 3, Preprocessing.std)
    seen = schemes.adapted(settings({"channels": 1}, student)).data.preprocessing
    assert (seen.image_size, seen.mean, seen.std) == ((48, 32), (0.5,), (0.25,))


@torch.no_grad()
def test_greyscale_images_go_through_rgb_weights_as_they_went_in_colour(tmp_path: Path) -> None:
    folder = hub(tmp_path / "hub")
    student = {"model": "timm/test_efficientnet", "checkpoint": str(folder)}
    grey, colour = (schemes.adapted(settings({"channels": channels}, student)) for channels in (1, 3))
    answers = []
    pixels = np.random.default_rng(0).integers(0, 256, (4, 48, 32, 1), dtype=np.uint8)
    for recipe in (grey, colour):
        seen = recipe.data.preprocessing
        begun = start(recipe.student, seen, CLASSES, adopted=True)
        given = seen.normalise(pixels.repeat(seen.shape.channels, axis=3))
        answers.append(begun.network.eval()(torch.from_numpy(given)))
        assert [("summed for greyscale" in note) for note in begun.notes] == ([True] if recipe is grey else [])
    assert torch.allclose(*answers, atol=1e-5) and answers[0].std() > 1e-3


def test_greyscale_images_normalised_otherwise_than_rgb_weights_are_refused_with_values_for_one_channel(
    tmp_path: Path,
) -> None:
    folder = hub(tmp_path / "hub", mean=[0.2, 0.4, 0.6], std=[0.1, 0.2, 0.3])
    student = {"model": "timm/test_efficientnet", "checkpoint": str(folder)}
    recipe = settings({"channels": 1, "mean": [0.1], "std": [0.2]}, student)
    with pytest.raises(ModelError, match=r"(?s)another normalisation.*mean \[0\.4\d*\], std \[0\.2\d*\]"):
        check_student(recipe.student, recipe.data.preprocessing, adopted=True)
    fits = settings({"channels": 1, "mean": [0.4], "std": [0.2]}, student)
    assert check_student(fits.student, fits.data.preprocessing, adopted=True) is None


def test_published_weights_have_an_input_too() -> None:
    known = own_input(ModelSettings(model="torchvision/inception_v3", pretrained=True))
    assert (known.image_size, known.crop_pct) == ((299, 299), 299 / 342)
    known = own_input(ModelSettings(model="timm/tf_efficientnetv2_b0", pretrained=True))
    assert (known.image_size, known.mean) == ((192, 192), (0.485, 0.456, 0.406))
    assert own_input(ModelSettings(model="timm/resnet18")).mean is None


def test_what_the_recipe_says_of_a_teachers_input_comes_before_what_its_folder_says(tmp_path: Path) -> None:
    folder = hub(tmp_path / "hub")
    teacher = {"model": "timm/test_efficientnet", "checkpoint": folder, "input": {"image_size": 64}}
    known = own_input(TeacherSettings.model_validate(teacher))
    assert (known.image_size, known.mean) == ((64, 64), (0.5,) * 3)


def test_a_hub_folders_classes_decide_the_order_and_another_model_is_refused(tmp_path: Path, bars: Path) -> None:
    folder = hub(tmp_path / "hub", labels=CLASSES[::-1])
    other = hub(tmp_path / "other", labels=("a", "b"))

    def run(model: str, checkpoint: Path, **data: Any) -> Any:
        data = {"source": "image-folder", "root": str(bars), "validation": 0.2, **data}
        student = {"model": model, "checkpoint": str(checkpoint)}
        recipe = from_mapping({"name": "x", "data": data, "student": student, "distill": {"scheme": "none"}})
        return pipeline.run_until("distill", recipe, tmp_path / "run")

    assert run("timm/test_efficientnet", folder).classes == CLASSES[::-1]
    with pytest.raises(ModelError, match="holds another model"):
        run("timm/test_resnet", folder)
    with pytest.raises(ModelError, match=r"in another order(?s:.)*set data.classes to the order of the weights"):
        run("timm/test_efficientnet", folder, class_order="name")
    with pytest.raises(ModelError, match=r"other classes than the data(?s:.)*use the same class names"):
        run("timm/test_efficientnet", other)


def test_a_grey_wide_student_learns_from_a_square_teacher_in_colour(tmp_path: Path, bars: Path) -> None:
    """Through every stage: training, pruning, calibration, export, bundle, and the app."""
    teacher = hub(tmp_path / "hub", input_size=[3, 32, 32])
    recipe = from_mapping(
        {
            "name": "bars",
            "data": {
                "source": "image-folder",
                "root": str(bars),
                "image_size": [16, 32],
                "channels": 1,
                "fit": "squash",
                "validation": 0.2,
                "test": 0.2,
            },
            "teacher": {"model": "timm/test_efficientnet", "checkpoint": str(teacher)},
            "student": {"model": "timm/test_efficientnet"},
            "distill": {**STEPS, "baseline": False},
            "prune": {"target": {"macs": 0.8}, **STEPS},
            "quantize": {"mode": "ptq", "calibration_images": 32},
            "export": {"variants": ["fp32", "int8"], "tolerance": {"int8": {"difference": 9.0, "agreement": 0.01}}},
            "bench": {"seconds": 0.02, "warmup_seconds": 0.0, "batch_sizes": [1]},
        }
    )
    made = pipeline.run(recipe, tmp_path / "run")
    adapted = teacher_in(made.made)
    assert adapted.details.architecture.channels == 3
    assert [edit["edit"] for edit in adapted.details.architecture.edits] == ["input"]
    assert checkpoints.load(adapted)(torch.zeros(1, 1, 16, 32)).shape == (1, 2)
    assert "teacher" in {ModelId.of(row).role for row in made.made.scores.rows}
    with load(made.bundle) as model:
        assert model.manifest.preprocessing.shape == (1, 16, 32)
        assert model.verify().images
        file = next((bars / "lying").iterdir())
        image = Image.open(file)
        expected = np.asarray(image.convert("L").resize((32, 16), Image.Resampling.BILINEAR))[None, :, :, None]
        logits = model.run(model.manifest.preprocessing.normalise(expected))
        assert np.allclose(model(file).scores, np.exp(logits[0]) / np.exp(logits[0]).sum(), atol=1e-5)
        assert np.array_equal(model(np.asarray(image)).scores, model(file).scores)
    assert "16 × 32 pixels (height × width)" in made.report.read_text()


def test_an_onnx_file_teaches_and_is_compared(tmp_path: Path, bars: Path) -> None:
    """As a file of one's own, whose input the recipe states, and as one in a bundle, which says it itself."""
    torch.manual_seed(0)
    network = build(Architecture(model="timm/test_efficientnet", num_classes=2)).eval()
    onnx.save(graph_of(network, InputShape(3, 32, 32), 17), tmp_path / "teacher.onnx")
    data = {"source": "image-folder", "root": str(bars), "image_size": [16, 32], "validation": 0.2, "test": 0.2}

    def run(name: str, **teacher: Any) -> Any:
        recipe = {
            "name": name,
            "data": data,
            "teacher": teacher,
            "student": {"model": "cifar/resnet8"},
            "distill": {**STEPS, "baseline": False},
            "export": {"variants": ["fp32"]},
            "bench": {"seconds": 0.02, "warmup_seconds": 0.0, "batch_sizes": [1]},
        }
        return pipeline.run(from_mapping(recipe), tmp_path / name)

    stated = {"mean": [0.5] * 3, "std": [0.5] * 3}
    made = run("first", model=str(tmp_path / "teacher.onnx"), input=stated).made
    teacher = teacher_in(made)
    images = torch.rand(2, 3, 16, 32)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (Preprocessing.mean, Preprocessing.std))
    # Between borders of the mean: the file takes squares of 32 pixels.
    own = torch.nn.functional.pad((images - 0.5) / 0.5, (0, 0, 8, 8))
    found = checkpoints.load(teacher)((images - mean) / std)
    assert torch.allclose(found, network(own), atol=1e-4)
    assert teacher.metrics["macs"] == cost(network, InputShape(3, 32, 32))["macs"]
    graph = made.exported.models[ModelId("teacher", "fp32")]
    assert graph.metrics["numerics"]["agreement_of_all"] == 1.0

    again = teacher_in(run("second", model=str(tmp_path / "first" / "bundle" / "model.fp32.onnx")).made)
    assert again.details.architecture.edits == () and again.metrics["validation_accuracy"] is not None
    with pytest.raises(ModelError, match="how teacher.onnx sees images is not known"):
        run("third", model=str(tmp_path / "teacher.onnx"))


def test_a_graph_of_any_size_needs_the_size_of_its_training() -> None:
    free = Signature("input", "logits", (3, 0, 0), channels_last=False, batch=None)
    seen = {"mean": [0.5] * 3, "std": [0.5] * 3}
    data = Preprocessing((16, 16), (16, 16))

    def edit(**more: Any) -> dict[str, Any] | None:
        teacher = TeacherSettings.model_validate({"model": "t.onnx", "input": {**seen, **more}})
        return seen_by_onnx(Path("t.onnx"), free, teacher, data)

    with pytest.raises(ModelError, match=r"image size of t.onnx is not known(?s:.)*teacher.input.image_size"):
        edit()
    converted = edit(image_size=24)
    assert converted is not None and converted["own"]["image_size"] == [24, 24]
