from __future__ import annotations

import pytest

from edgekd.errors import ModelError, UnknownNameError, UsageError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build

SMALL = Architecture(
    model="torchvision/mobilenet_v3_small", arguments={"width_mult": 0.35}, num_classes=3, small_stem=True
)


@pytest.mark.parametrize(
    ("model", "arguments", "kind", "message"),
    [
        ("torchvision/mobilenet_v3_smal", {}, UnknownNameError, "did you mean 'torchvision/mobilenet_v3_small'"),
        ("torchvison/resnet18", {}, UnknownNameError, "did you mean 'torchvision/resnet18'"),
        ("timm/resnet1", {}, UnknownNameError, "unknown model of timm"),
        ("torchvision/mobilenet_v3_small", {"width": 0.5}, ModelError, "takes no argument 'width'"),
        ("torchvision/resnet18", {"width": 0.5}, ModelError, "takes no argument 'width'"),
        ("timm/resnet18", {"width": 0.5}, ModelError, "cannot be built"),
        ("timm/resnet18", {"block": "x"}, ModelError, r"cannot be built with {'block': 'x'}\n  found: AttributeError"),
        ("timm/resnet18", {"num_classes": 2}, UsageError, "must not be built with num_classes(?s:.)*class of the data"),
    ],
)
def test_what_cannot_be_built_is_named(model, arguments, kind, message):
    with pytest.raises(kind, match=message):
        build(Architecture(model=model, arguments=arguments, num_classes=2))


HEAD = {"features": 4, "reduction": 2}
EXPERTS = {"edit": "experts", "experts": [], "order": [0]}


@pytest.mark.parametrize(
    "edit",
    [
        {},
        {"edit": "prune"},
        {"edit": "prune", "shapes": None},
        {"edit": "prune", "shapes": {"features.0.0.weight": 8}},
        {"edit": "prune", "shapes": {"features.0.0.weight": ["x", 3, 3, 3]}},
        {"edit": "reuse_classifier", "at": "classifier.3"},
        {"edit": "reuse_classifier", "at": "classifier.3", "features": "many", "reduction": 2},
    ],
)
def test_a_damaged_edit_is_one_clear_error(edit):
    with pytest.raises(
        ModelError, match=r"the manifest's edit .* cannot be replayed on torchvision/mobilenet_v3_small"
    ):
        build(SMALL.edited(edit))


@pytest.mark.parametrize(
    "edit", [EXPERTS, {"edit": "experts"}, {"edit": "quantize"}, {"edit": "reuse_classifier", "at": "", **HEAD}]
)
def test_an_error_of_an_edit_itself_is_passed_on(edit):
    with pytest.raises(ModelError) as raised:
        build(SMALL.edited(edit))
    assert "cannot be replayed" not in str(raised.value)
