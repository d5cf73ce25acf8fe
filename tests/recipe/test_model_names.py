from __future__ import annotations

import re

import pytest
import yaml

from edgekd.errors import RecipeError, UnknownNameError, UsageError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.recipe.load import from_mapping
from edgekd.recipe.model_names import check_arguments, check_name

GOOD = """
name: shoes
data: {source: digits, image_size: 32}
teacher: {model: cifar/resnet20, train: {epochs: 2}}
student: {model: cifar/resnet8}
"""


def test_known_names_and_files_that_are_there_pass(tmp_path):
    (tmp_path / "nets.py").write_text("raise SystemExit('run')")
    for model in ("cifar/resnet20", "torchvision/resnet18", f"{tmp_path}/nets.py:build"):
        check_name(model)


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ("cifar/resnet21", UnknownNameError, "unknown model of cifar 'resnet21'(?s:.)*did you mean 'cifar/resnet20'"),
        ("cifer/resnet20", UnknownNameError, "did you mean 'cifar/resnet20'"),
        ("resnet20", UnknownNameError, "unknown model source 'resnet20'"),
        ("gone.py:build", UsageError, "gone.py"),
        ("gone.py", UsageError, "does not name a function(?s:.)*nets.py:build"),
        ("gone.PY:build", UsageError, "does not name a function"),
        ("gone.py/build", UsageError, "does not name a function"),
        ("gone.py :build", UsageError, "does not name a function"),
        # Nearly a network of the user's own.
        ("path/X", UnknownNameError, "or nets.py:build, a file and a function in it(?s:.)*path/X.py:build"),
        ("./nets", UnknownNameError, r"next: [^:]*: ./nets.py:build"),
        ("nets:Net", UnknownNameError, r"next: [^:]*: nets.py:Net"),
        ("lib/nets.ipynb:build", UnknownNameError, r"next: [^:]*: lib/nets.py:build"),
        # Nearly a source's model, or weights.
        ("resnet18", UnknownNameError, "did you mean 'timm/resnet18' or 'torchvision/resnet18'"),
        ("runs/shoes/student.safetensors", UnknownNameError, "give the file as `checkpoint`"),
        ("", UnknownNameError, "torchvision; or nets.py:build"),
    ],
)
def test_others_are_refused(model, kind, message):
    with pytest.raises(kind, match=message):
        check_name(model)


@pytest.mark.parametrize(
    ("model", "suggestions"),
    [
        ("timm/resnet5O", ["timm/resnet50"]),
        ("timm/ResNet50", ["timm/resnet50"]),
        ("timm/resnet50.a1_in1k", ["timm/resnet50"]),
        ("timm/mobilenetv3_smal", [f"timm/mobilenetv3_small_{width}" for width in ("050", "075", "100")]),
        ("torchvision/mobilenet_v3_smal", ["torchvision/mobilenet_v3_small"]),
        ("torchvision/mobilenetv3_small_100", ["timm/mobilenetv3_small_100", "torchvision/mobilenet_v3_small"]),
        ("torchvison/resnet18", ["torchvision/resnet18"]),
        ("resnet50", ["timm/resnet50", "torchvision/resnet50"]),
        ("resnet-50", ["timm/resnet50", "torchvision/resnet50"]),
        ("resnet5O", ["timm/resnet50", "torchvision/resnet50"]),
        ("torchvision/convnext", [f"torchvision/convnext_{size}" for size in ("base", "tiny", "large")]),
        ("timm/vit_tiny", [f"timm/vit_tiny_{each}" for each in ("patch16_224", "patch16_384", "r_s16_p8_224")]),
        ("timm/zzz", []),
        ("timm/", []),
    ],
)
def test_the_most_similar_models_are_suggested_with_their_source(model, suggestions):
    with pytest.raises(UnknownNameError) as refused:
        check_name(model)
    message = str(refused.value)
    assert re.findall(r"'([^']*)'", message.partition("did you mean")[2]) == suggestions
    assert "aimv2" not in message and len(message) < 300


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("timm/resnet18", {"checkpoint_path": "w.pth"}),
        ("timm/resnet18", {"pretrained_cfg": {"file": "w.pth"}}),
        ("timm/resnet18", {"pretrained_cfg_overlay": {"url": "https://example.com/w.pth"}}),
        ("timm/resnet18", {"pretrained": True}),
        ("torchvision/resnet18", {"weights": "DEFAULT"}),
        ("torchvision/resnet18", {"weights_backbone": "DEFAULT"}),
    ],
)
def test_an_argument_that_loads_weights_is_refused_by_name(model, arguments):
    with pytest.raises(
        UsageError, match=rf"{model} must not be built with {next(iter(arguments))}\n(?s:.)*`checkpoint`"
    ):
        check_arguments(model, arguments)
    for section in ("student", "teacher"):
        recipe = yaml.safe_load(GOOD)
        recipe[section] |= {"model": model, "arguments": arguments}
        with pytest.raises(RecipeError, match=rf"{section}.arguments: {model} must not be built") as refused:
            from_mapping(recipe)
        assert len(refused.value.problems) == 1
    with pytest.raises(UsageError, match="must not be built"):
        build(Architecture(model=model, num_classes=2, arguments=arguments))


@pytest.mark.parametrize("model", ["timm/resnet18", "cifar/resnet8", "nets.py:build"])
def test_the_number_of_classes_is_that_of_the_data(model):
    with pytest.raises(UsageError, match=rf"{model} must not be built with num_classes\n  found: num_classes: 7"):
        check_arguments(model, {"num_classes": 7})


def test_other_arguments_and_functions_of_ones_own_are_not_its_matter(tmp_path):
    check_arguments("timm/resnet18", {"in_chans": 1})
    (tmp_path / "nets.py").write_text("def build(num_classes, weights): ...")
    check_arguments(f"{tmp_path / 'nets.py'}:build", {"weights": "mine"})
    with pytest.raises(RecipeError, match="unknown model source 'tim'") as refused:
        from_mapping({**yaml.safe_load(GOOD), "student": {"model": "tim/x", "arguments": {"a": 1}}})
    assert len(refused.value.problems) == 1


def test_a_recipe_names_the_line_and_the_form_for_networks_of_ones_own(tmp_path):
    recipe = yaml.safe_load(GOOD) | {"student": {"model": "path/X"}}
    with pytest.raises(RecipeError, match="student.model: unknown model source 'path'(?s:.)*path/X.py:build"):
        from_mapping(recipe)
