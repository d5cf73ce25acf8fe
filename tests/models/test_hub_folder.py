"""Folders in the layouts that timm's push_to_hf_hub and transformers' save_pretrained write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekd.errors import ModelError
from edgekd.models import hub_folder

TIMM: dict[str, Any] = {
    "architecture": "mobilenetv3_small_050",
    "num_classes": 3,
    "label_names": ["cat", "dog", "owl"],
    "pretrained_cfg": {
        "input_size": [3, 224, 192],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "squash",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    },
}
TRANSFORMERS: dict[str, Any] = {
    "architectures": ["ResNetForImageClassification"],
    "id2label": {"10": "owl", "0": "cat", "2": "dog"},
}
PROCESSOR: dict[str, Any] = {
    "do_normalize": True,
    "image_mean": [0.4, 0.4, 0.4],
    "image_std": [0.2, 0.2, 0.2],
    "size": {"shortest_edge": 256},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
}


def written(folder: Path, config: Any, processor: Any = None, weights: str = "model.safetensors") -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    if weights:
        (folder / weights).write_bytes(b"")
    return folder


@pytest.mark.parametrize("nested", [True, False])
def test_timms_description(tmp_path: Path, nested: bool) -> None:
    config = TIMM if nested else {**TIMM, **TIMM["pretrained_cfg"], "pretrained_cfg": None}
    found = hub_folder.read(
        written(tmp_path, {**config, "model_args": {"drop_rate": 0.1, "num_classes": 3, "in_chans": 3}})
    )
    assert (found.architecture, found.classes) == ("mobilenetv3_small_050", ("cat", "dog", "owl"))
    assert found.weights.name == "model.safetensors" and found.arguments == {"drop_rate": 0.1}
    own = found.input
    assert (own.image_size, own.channels, own.fit) == ((224, 192), 3, "squash")
    assert (own.mean, own.std, own.interpolation, own.crop_pct) == ((0.5,) * 3, (0.25,) * 3, "bicubic", 0.95)


def test_transformers_description(tmp_path: Path) -> None:
    found = hub_folder.read(written(tmp_path, TRANSFORMERS, PROCESSOR, "pytorch_model.bin"))
    assert found.architecture is None and found.classes == ("cat", "dog", "owl")
    assert (found.input.image_size, found.input.crop_pct) == ((224, 224), 224 / 256)
    assert (found.input.mean, found.input.interpolation) == ((0.4,) * 3, "bicubic")
    whole = {**PROCESSOR, "do_center_crop": False, "size": {"height": 96, "width": 128}, "do_normalize": False}
    plain = hub_folder.read(written(tmp_path, TRANSFORMERS, whole)).input
    assert (plain.image_size, plain.mean, plain.std, plain.crop_pct) == ((96, 128), (0.0,) * 3, (1.0,) * 3, None)


@pytest.mark.parametrize(
    ("config", "processor", "weights", "message"),
    [
        (TIMM, None, "", "no weights"),
        ([1], None, "model.safetensors", "not a description"),
        ({**TIMM, "pretrained_cfg": {"mean": "grey"}}, None, "model.safetensors", "cannot be read"),
        ({**TIMM, "pretrained_cfg": {"input_size": [3]}}, None, "model.safetensors", "cannot be read"),
        (TRANSFORMERS, {**PROCESSOR, "rescale_factor": 1 / 127.5}, "model.safetensors", "edgekd scales them to"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    tmp_path: Path, config: Any, processor: Any, weights: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        hub_folder.read(written(tmp_path, config, processor, weights))


def test_what_is_such_a_folder(tmp_path: Path) -> None:
    assert not hub_folder.is_one(tmp_path)
    assert hub_folder.is_one(written(tmp_path, TIMM))
    (tmp_path / "manifest.json").write_text("{}")
    assert not hub_folder.is_one(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_size": [3, -1, 64]},
        {"input_size": [3, 4096, 4096]},
        {"input_size": [3, 10**30, 5]},
        {"std": [float("nan")] * 3},
        {"std": [0.0] * 3},
        {"mean": [0.5], "std": [0.5, 0.5]},
        {"crop_pct": 7, "crop_mode": "center"},
        {"crop_pct": 0.01, "crop_mode": "center"},
    ],
)
def test_numbers_that_no_recipe_may_say_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"cannot be read\n  found: "):
        hub_folder.read(written(tmp_path, {**TIMM, "pretrained_cfg": {**TIMM["pretrained_cfg"], **wrong}}))


def test_a_network_of_one_channel_has_the_mean_of_the_means(tmp_path: Path) -> None:
    published = {**TIMM["pretrained_cfg"], "mean": [0.3, 0.4, 0.5], "std": [0.1, 0.2, 0.3]}
    for described in ({"model_args": {"in_chans": 1}}, {"pretrained_cfg": {**published, "input_size": [1, 96, 96]}}):
        own = hub_folder.read(written(tmp_path, {**TIMM, "pretrained_cfg": published, **described})).input
        assert own.mean == pytest.approx((0.4,)) and own.std == pytest.approx((0.2,))


def test_brackets_without_end_are_no_description(tmp_path: Path) -> None:
    (written(tmp_path, TIMM) / "config.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="cannot be read"):
        hub_folder.read(tmp_path)
