"""The arguments that timm's trainer saves beside the weights say how its images were prepared."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.utils.checkpoint_saver import CheckpointSaver

from edgekd import pipeline, schemes
from edgekd.models.own_input import own_input
from edgekd.models.timm_training import trained_input, warning_of
from edgekd.models.trained_input import TrainedInput
from edgekd.recipe.load import from_mapping
from edgekd.recipe.settings import TeacherSettings
from edgekd.runtime.preprocess import Preprocessing
from edgekd.store.artifacts import digest, file_digest
from edgekd.training.train import origin_of

UNSET = {"img_size": None, "input_size": None, "mean": None, "std": None, "crop_pct": None, "interpolation": ""}
GIVEN = {"img_size": 48, "mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 0.8, "interpolation": "bicubic"}


def saved(folder: Path, *, model: str = "test_efficientnet", **given: Any) -> Path:
    """A file as timm's own trainer writes it."""
    folder.mkdir(exist_ok=True)
    network = timm.create_model(model, num_classes=10)
    args = Namespace(**{"model": model, "lr": 0.1, "in_chans": 3, **UNSET, **given})
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    CheckpointSaver(network, optimizer, args=args, checkpoint_dir=str(folder)).save_checkpoint(0, 0.5)
    return folder / "last.pth.tar"


def test_what_is_set_is_known(tmp_path: Path) -> None:
    found = trained_input(saved(tmp_path, **GIVEN))
    assert found == TrainedInput((48, 48), (0.5,) * 3, (0.25,) * 3, "bicubic", 0.8)
    assert "teacher.checkpoint holds" in str(warning_of(tmp_path / "last.pth.tar", "teacher"))
    assert "image_size [48, 48], mean [0.5, 0.5, 0.5]" in str(warning_of(tmp_path / "last.pth.tar", "teacher"))


def test_what_is_not_set_is_not_known(tmp_path: Path) -> None:
    assert trained_input(saved(tmp_path)) == TrainedInput() and warning_of(tmp_path / "last.pth.tar", "student") is None


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ({"input_size": [3, 48, 32], "img_size": 64}, TrainedInput((48, 32))),
        ({"mean": [0.5], "std": (0.25,)}, TrainedInput(mean=(0.5,) * 3, std=(0.25,) * 3)),
        ({"in_chans": 1, "mean": [0.5], "std": [0.25]}, TrainedInput(mean=(0.5,), std=(0.25,))),
        ({"input_size": [1, 28, 28], "mean": [0.5], "std": [0.2]}, TrainedInput((28, 28), (0.5,), (0.2,))),
        ({"interpolation": "random"}, TrainedInput()),
        ({"crop_mode": "squash", "crop_pct": 0.9}, TrainedInput(crop_pct=0.9, fit="squash")),
    ],
)
def test_they_are_read_as_timm_reads_them(tmp_path: Path, given: dict[str, Any], known: TrainedInput) -> None:
    assert trained_input(saved(tmp_path, **given)) == known


@pytest.mark.parametrize(
    "given",
    [
        {"img_size": -1},
        {"img_size": "large"},
        {"input_size": [3, 48]},
        {"mean": [0.5, 0.5]},
        {"mean": [float("nan")] * 3, "std": [1.0] * 3},
        {"mean": "abc", "std": [0.1] * 3},
        {"crop_pct": 7},
        {"in_chans": {}},
    ],
)
def test_values_that_no_recipe_could_have_are_not_taken(tmp_path: Path, given: dict[str, Any]) -> None:
    assert trained_input(saved(tmp_path, **given)) == TrainedInput()


def test_files_of_others_say_nothing(tmp_path: Path) -> None:
    args = Namespace(**GIVEN)
    for name, content in {"other": {"model": {}, "args": args}, "plain": {"state_dict": {}}, "list": [args]}.items():
        torch.save(content, tmp_path / f"{name}.pth")
        assert trained_input(tmp_path / f"{name}.pth") == TrainedInput()
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 not a zip")
    assert {trained_input(tmp_path / name) for name in ("broken.pth", "none.pth")} == {TrainedInput()}


def test_the_format_before_pytorch_1_6(tmp_path: Path) -> None:
    content = {"arch": "x", "state_dict": {"w": torch.ones(2)}, "args": Namespace(**GIVEN)}
    torch.save(content, tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    assert trained_input(tmp_path / "old.pth.tar").mean == (0.5,) * 3


class Loud:
    """Would be built by pickle, and prints then."""

    ran = False

    def __setstate__(self, state: object) -> None:
        type(self).ran = True


def test_nothing_in_the_arguments_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loud, "__module__", "__main__")
    monkeypatch.setattr("__main__.Loud", Loud, raising=False)
    loud = Loud()
    loud.value = 1  # type: ignore[attr-defined]
    assert trained_input(saved(tmp_path, **GIVEN, hook=loud)).image_size == (48, 48) and not Loud.ran


def settings(file: Path, **data: Any) -> Any:
    student = {"model": "timm/test_efficientnet", "checkpoint": str(file)}
    return from_mapping(
        {"name": "x", "data": {"source": "digits", **data}, "student": student, "distill": {"scheme": "none"}}
    )


def test_a_recipes_own_value_wins(tmp_path: Path) -> None:
    file = saved(tmp_path, **GIVEN)
    seen = schemes.adapted(settings(file).settings).data.preprocessing
    assert seen == Preprocessing((48, 48), (60, 60), (0.5,) * 3, (0.25,) * 3, "bicubic")
    assert schemes.adapted(settings(file, image_size=24).settings).data.preprocessing.image_size == (24, 24)
    teacher = {"model": "timm/test_efficientnet", "checkpoint": file, "input": {"mean": [0.4] * 3, "std": [0.2] * 3}}
    known = own_input(TeacherSettings.model_validate(teacher))
    assert (known.image_size, known.mean, known.std) == ((48, 48), (0.4,) * 3, (0.2,) * 3)


class Told:
    """A console that keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments, **_named: None

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_a_plan_says_what_is_taken(tmp_path: Path) -> None:
    """In place of the warning that a normalisation is assumed."""
    pipeline.plan(settings(saved(tmp_path, **GIVEN), limit=200), tmp_path / "run", console=(console := Told()))
    (said,) = [warning for warning in console.warnings if "student.checkpoint" in warning]
    assert "arguments of its training with timm" in said and "std [0.25, 0.25, 0.25]" in said


def test_what_they_say_is_part_of_a_stages_key_and_no_other_files_key_changes(tmp_path: Path) -> None:
    """What was made before they were read was made of images prepared in another way."""
    said, silent = (saved(tmp_path / name, **given) for name, given in (("said", GIVEN), ("silent", {})))
    keys = [
        origin_of(TeacherSettings.model_validate({"model": "timm/test_efficientnet", "checkpoint": file}))["checkpoint"]
        for file in (said, silent)
    ]
    assert [key == digest(file_digest(file)) for key, file in zip(keys, (said, silent), strict=True)] == [False, True]
