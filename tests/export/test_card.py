from __future__ import annotations

from types import SimpleNamespace

from edgekd.export.card import card
from edgekd.models.architecture import Architecture
from edgekd.models.edits.activation import RELU
from edgekd.runtime.preprocess import Preprocessing


def test_the_card_has_every_files_accuracy_and_every_head():
    architecture = Architecture(
        model="cifar/resnet8", arguments={"width": 2}, num_classes=5, heads={"shape": ("round", "square", "flat")}
    )
    student = SimpleNamespace(classes=("cat", "dog"), metrics={"parameters": 78042, "macs": 12_000_000})
    details = SimpleNamespace(source="digits", preprocessing=Preprocessing((32, 32), (32, 32)))
    data = SimpleNamespace(details=details, measure="accuracy")
    score = {"accuracy": 0.875, "interval": (0.7, 0.95), "samples": 40, "engine": "onnxruntime 1.20"}
    head = {**score, "accuracy": 0.5, "interval": (0.35, 0.65)}
    variants = {"fp32": {"file": "model.fp32.onnx", "metrics": {**score, "heads": {"shape": head}}}}
    text = card("pets", architecture, student, variants, data)
    assert "| fp32 | `model.fp32.onnx` | 87.50% (70.00% to 95.00%) | 40 | onnxruntime 1.20 |" in text
    assert "| fp32, shape | `model.fp32.onnx` | 50.00% (35.00% to 65.00%) | 40 |" in text
    assert "cat, dog\n\nshape: round, square, flat" in text
    assert "cifar/resnet8 (width=2), 78,042 parameters, 12,000,000 MACs" in text
    assert "for 2 classes at 32x32 pixels, compressed with edgekd" in text and "agreement" not in text


def test_without_labels_it_has_agreements_and_the_error_of_the_logits():
    student = SimpleNamespace(classes=("cat", "dog"), metrics={"parameters": 78042, "macs": 12_000_000})
    details = SimpleNamespace(source="unlabelled", preprocessing=Preprocessing((32, 32), (32, 32)))
    score = {"agreement": 0.875, "interval": (0.7, 0.95), "samples": 40, "engine": "onnxruntime 1.20"}
    variants = {
        "fp32": {"file": "a.onnx", "metrics": {**score, "logit_error": 0.0321}},
        "int8": {"file": "b.onnx", "metrics": {**score, "logit_error": None}},
    }
    data = SimpleNamespace(details=details, measure="agreement")
    text = card("pets", Architecture(model="cifar/resnet8", num_classes=2), student, variants, data)
    assert "| fp32 | `a.onnx` | 87.50% (70.00% to 95.00%) | 40 | onnxruntime 1.20 | 3.21% |" in text
    assert "| onnxruntime 1.20 | – |" in text and "distilled" not in text and "no accuracy" in text


def test_the_card_of_images_with_several_classes():
    student = SimpleNamespace(classes=("cat", "dog"), metrics={"parameters": 10, "macs": 20})
    details = SimpleNamespace(source="csv-file", preprocessing=Preprocessing((32, 32), (32, 32)))
    score = {"mAP": 0.75, "interval": (0.7, 0.8), "samples": 40, "engine": "x"}
    variants = {"fp32": {"file": "model.fp32.onnx", "metrics": score}}
    architecture = Architecture(model="cifar/resnet8", num_classes=2)
    text = card("pets", architecture, student, variants, SimpleNamespace(details=details, measure="mAP"))
    assert "| variant | file | mAP |" in text and "75.00% (70.00% to 80.00%)" in text
    assert "Top-1" not in text and ".labels)" in text and "reaches its\nthreshold" in text


def test_the_card_states_what_differs_from_the_model_of_that_name():
    student = SimpleNamespace(classes=("cat", "dog"), metrics={"parameters": 10, "macs": 20})
    details = SimpleNamespace(source="digits", preprocessing=Preprocessing((32, 32), (32, 32)))
    edit = {"edit": "reparameterize", "modules": ["stem"], "convolutions": [191, 43], "norms": [226, 0]}
    architecture = Architecture(model="timm/mobileone_s0", num_classes=2, edits=(edit,))
    data = SimpleNamespace(details=details, measure="accuracy")
    text = card("pets", architecture, student, {}, data)
    assert "20 MACs per image; branches folded after training: 191 → 43 convolutions." in text
    text = card("pets", architecture.model_copy(update={"edits": (dict(RELU),)}), student, {}, data)
    assert "20 MACs per image; ReLU instead of hard-swish and SiLU." in text
