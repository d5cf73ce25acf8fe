from __future__ import annotations

import pytest
import torch
import torch_pruning
from torch import nn

from edgekd.errors import ArtifactError, ModelError, UnknownNameError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint, TrainingNotes
from edgekd.models.cost import cost
from edgekd.models.stems import shrink_stem, wants_small_stem
from edgekd.runtime.preprocess import Preprocessing
from edgekd.store.artifacts import read_json

SMALL = Architecture(
    model="torchvision/mobilenet_v3_small", arguments={"width_mult": 0.35}, num_classes=3, small_stem=True
)
# How often the last feature map is smaller than the image, with the small stem.
STRIDES = {
    "torchvision/mobilenet_v2": 16,
    "torchvision/mobilenet_v3_small": 16,
    "torchvision/shufflenet_v2_x0_5": 8,
    "torchvision/squeezenet1_1": 4,
    "torchvision/mnasnet0_5": 16,
    "torchvision/efficientnet_b0": 16,
    "torchvision/resnet18": 8,
    "timm/mobilenetv3_small_050": 16,
    "timm/resnet18": 8,
}


def _last_map(model: nn.Module, side: int) -> int:
    """The side of the smallest map that a convolution with more than one pixel makes."""
    sides = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, out: sides.append(out.shape[-1]))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side))
    return min(size for size in sides if size > 1)


@pytest.mark.parametrize(("name", "stride"), STRIDES.items())
def test_small_stems_keep_the_image(name, stride):
    assert wants_small_stem(name, 32, "auto") and not wants_small_stem(name, 224, "auto")
    model = build(Architecture(model=name, num_classes=4, small_stem=True))
    # Max-pools round up or down; SqueezeNet's odd sizes are within one pixel.
    assert abs(_last_map(model, 64) - 64 // stride) <= 1


def test_a_seven_by_seven_stem_becomes_its_centre():
    model = build(Architecture(model="torchvision/resnet18", num_classes=2))
    wide = model.get_submodule("conv1").weight.clone()
    shrink_stem(model, "torchvision/resnet18")
    assert torch.equal(model.get_submodule("conv1").weight, wide[:, :, 2:5, 2:5])


def test_a_stem_that_nobody_knows_is_refused():
    with pytest.raises(ModelError, match="no small-image stem for torchvision/vit_b_16"):
        wants_small_stem("torchvision/vit_b_16", 32, "small")
    assert not wants_small_stem("torchvision/vit_b_16", 32, "auto")


@pytest.mark.parametrize(
    ("model", "arguments", "kind", "message"),
    [
        ("torchvision/mobilenet_v3_smal", {}, UnknownNameError, "did you mean 'mobilenet_v3_small'"),
        ("torchvison/resnet18", {}, UnknownNameError, "did you mean 'torchvision'"),
        ("timm/resnet1", {}, UnknownNameError, "unknown model of timm"),
        ("torchvision/mobilenet_v3_small", {"width": 0.5}, ModelError, "takes no argument 'width'"),
        ("torchvision/resnet18", {"width": 0.5}, ModelError, "takes no argument 'width'"),
        ("timm/resnet18", {"width": 0.5}, ModelError, "cannot be built"),
    ],
)
def test_what_cannot_be_built_is_named(model, arguments, kind, message):
    with pytest.raises(kind, match=message):
        build(Architecture(model=model, arguments=arguments, num_classes=2))


def test_macs_of_a_convolution_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    assert cost(model, 16) == {"parameters": 8 * 27 + 8 + 45, "macs": 16 * 16 * 8 * 27 + 40}


@pytest.mark.parametrize(("name", "width"), [("resnet9", 64), ("resnet9x0.5", 32)])
def test_the_macs_of_resnet9_by_hand(name, width):
    """A stem, and five parts of equal work: three convolutions that widen, and two pairs that do not."""
    network = build(Architecture(model=f"cifar/{name}", num_classes=10))
    stem = 32 * 32 * 9 * 3 * width
    equal = 32 * 32 * 9 * width * 2 * width
    assert cost(network, 32)["macs"] == stem + 5 * equal + 8 * width * 10
    assert network.eval()(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


def _save(model, architecture, out) -> Checkpoint:
    out.mkdir()
    return checkpoints.save(model, architecture, preprocessing=Preprocessing(32, 32), classes=("a", "b", "c"), out=out)


def test_a_checkpoint_rebuilds_the_same_network_from_its_folder(tmp_path):
    model = build(SMALL).eval()
    _save(model, SMALL, tmp_path / "c")
    again = checkpoints.load(Checkpoint.load(tmp_path / "c"))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), again(images))


def test_pruned_widths_are_rebuilt_from_the_manifest(tmp_path):
    model = build(SMALL).eval()
    example = torch.zeros(1, 3, 32, 32)
    importance = torch_pruning.importance.MagnitudeImportance(p=2)
    head = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 3]
    pruner = torch_pruning.pruner.MetaPruner(
        model, example, importance, pruning_ratio=0.5, ignored_layers=head, round_to=8
    )
    pruner.step()
    pruned = SMALL.edited({"edit": "prune", "history": pruner.pruning_history(), "image_size": 32})
    saved = _save(model, pruned, tmp_path / "c")
    assert saved.metrics["macs"] < cost(build(SMALL), 32)["macs"]
    again = checkpoints.load(Checkpoint.load(tmp_path / "c"))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.eval()(images), again(images))


def test_a_pruning_history_of_another_network_is_refused():
    edit = {"edit": "prune", "history": [["features.99", True, [0]]], "image_size": 32}
    with pytest.raises(ModelError, match=r"does not fit this network at features\.99"):
        build(SMALL.edited(edit))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("architecture", {"model": "cifar/resnet8"}, r"details\.architecture\.num_classes: Field required"),
        ("preprocessing", {"image_size": 8, "resize": 8, "mean": [0.5]}, r"details\.preprocessing\.mean\.1"),
        ("preprocessing", {"image_size": "8", "resize": 8}, r"details\.preprocessing\.image_size"),
        ("classes", "cat", r"details\.classes"),
        ("training", {"label_smoothing": "some"}, r"details\.training\.label_smoothing"),
    ],
)
def test_a_manifest_that_describes_no_network_is_refused(tmp_path, field, value, message):
    saved = _save(build(SMALL), SMALL, tmp_path / "c")
    details = {**saved.manifest.details, field: value}
    with pytest.raises(ArtifactError, match=rf"of the kind checkpoint(?s:.)*{message}"):
        Checkpoint(saved.path, saved.manifest.model_copy(update={"details": details}))


def test_notes_on_training_keep_what_a_scheme_adds_and_no_more(tmp_path):
    notes = TrainingNotes(epochs=3, objective=[{"method": "kd"}])
    checkpoints.save(
        build(SMALL), SMALL, preprocessing=Preprocessing(32, 32), classes=("a", "b", "c"), out=tmp_path, training=notes
    )
    on_disk = read_json(tmp_path / "manifest.json")["details"]["training"]
    assert on_disk == {"epochs": 3, "objective": [{"method": "kd"}]}
    assert Checkpoint.load(tmp_path).details.training == notes


HEAD = {"features": 4, "reduction": 2}
EXPERTS = {"edit": "experts", "experts": [], "order": [0]}


@pytest.mark.parametrize(
    "edit",
    [
        {},
        {"edit": "prune"},
        {"edit": "prune", "image_size": None, "history": []},
        {"edit": "prune", "image_size": 32, "history": [[1]]},
        {"edit": "prune", "image_size": 32, "history": [["features.0.0", True, ["x"]]]},
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
def test_an_edit_that_says_itself_what_is_wrong_is_heard(edit):
    with pytest.raises(ModelError) as raised:
        build(SMALL.edited(edit))
    assert "cannot be replayed" not in str(raised.value)
