"""Mistakes within and between a recipe's sections."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import RecipeError
from edgekd.recipe import load as recipe

GOOD = """\
name: shoes
data: {source: digits, image_size: 32}
teacher: {model: cifar/resnet20, train: {epochs: 2, learning_rate: 1e-1}}
student: {model: torchvision/mobilenet_v3_small}
"""


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_an_untrained_teacher_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="a teacher must be trained"):
        recipe.load(_write(tmp_path, GOOD.replace(", train: {epochs: 2, learning_rate: 1e-1}", "")))


@pytest.mark.parametrize(
    ("yaml_section", "message"),
    [
        ("prune: {target: {}}", "prune.target: set exactly one of macs, parameters, latency, latency_ms, size_mb"),
        (
            "prune: {target: {macs: 0.5, parameters: 0.5}}",
            "prune.target: set exactly one of macs, parameters, latency, latency_ms, size_mb",
        ),
        ("prune: {target: {macs: 1.0}}", "prune.target.macs: must be below 1"),
        ("prune: {device: jetson-orin-nano-9gb}", "did you mean 'jetson-orin-nano-8gb'"),
        ("prune: {objective: [{method: kdd}]}", "prune.objective[0].method: unknown distillation method 'kdd'"),
        ("quantize: {objective: [{method: kd, temprature: 2}]}", "quantize.objective[0].temprature: unknown parameter"),
        ("quantize: {mode: qat}", "did you mean 'qad'"),
        (
            "quantize: {calibration_images: 1}",
            "quantize.calibration_images: must be at least 16",
        ),
        ("quantize: {keep_float: first}", "quantize.keep_float: must be auto or a list of layers, blocks and patterns"),
        ("quantize: {keep_float: [a, 3]}", 'blocks and patterns; found: ["a", 3]'),
        ("quantize: {precision: bf16}", "quantize.precision: must be 'auto' or 'fp32'"),
        ("export: {variants: [fp32, int8]}", "int8 needs a quantize section"),
        ("export: {variants: [fp32, int8-asym]}", "int8-asym is derived from it"),
        ("export: {variants: [fp16]}", "fp32 must be among the variants: fp16 is derived from it"),
        ("export: {variants: [fp32, fp61]}", "yaml:5 export.variants[1]: unknown export variant 'fp61'"),
        ("export: {variants: [fp32, fp61]}", "allowed: fp16, fp32, int8, int8-asym; next: did you mean 'fp16'?"),
        ("export: {tolerance: {int9: {difference: 1.0, agreement: 1.0}}}", "export.tolerance.int9: unknown export"),
        ("export: {variants: [fp32]}\nquantize: {}", "add int8 to export.variants, or remove the quantize section"),
    ],
)
def test_mistakes_in_the_optional_sections(tmp_path, yaml_section, message):
    with pytest.raises(RecipeError) as caught:
        recipe.load(_write(tmp_path, GOOD + yaml_section + "\n"))
    assert len(caught.value.problems) == 1 and message in caught.value.problems[0]


def test_int8_is_exported_where_there_is_something_to_export(tmp_path):
    assert recipe.load(_write(tmp_path, GOOD)).settings.variants == ("fp32", "fp16")
    both = recipe.load(_write(tmp_path, GOOD + "quantize: {}\n")).settings
    assert both.variants == ("fp32", "fp16", "int8", "int8-asym")
    tolerant = recipe.load(
        _write(tmp_path, GOOD), ["export.tolerance={fp16: {difference: 0.5, agreement: 0.5}}"]
    ).settings
    assert tolerant.export.tolerance_of("fp16").difference == 0.5
    assert tolerant.export.tolerance_of("fp32") == both.export.tolerance_of("fp32")
