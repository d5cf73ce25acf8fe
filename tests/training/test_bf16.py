from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from edgekd.training import bf16, host
from edgekd.training.train import evaluation_loader

CPU = torch.device("cpu")
FOUND = {"keeps": True, "agreement": 0.999, "batch_ms": {"fp32": 2.0, "bf16": 1.0}}


def network(side: int = 16) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * side * side, 10))


@pytest.fixture
def has_bf16(monkeypatch):
    monkeypatch.setattr(host, "cpu_has_bf16", lambda: True)


def test_predictions_are_compared_in_both_formats(small_digits, has_bf16):
    model, loader = network(), evaluation_loader(small_digits, "validation")
    found = bf16.compare(model, loader, CPU)
    images = torch.cat([batch.images for batch in loader.epoch(0)])
    targets = torch.cat([batch.targets for batch in loader.epoch(0)])
    with torch.no_grad():
        predictions = model(images).argmax(1)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(images).argmax(1)
    assert found["images"] == len(targets)
    assert found["agreement"] == pytest.approx((predictions == rounded).float().mean().item())
    assert found["correct"]["fp32"] == pytest.approx((predictions == targets).float().mean().item())
    assert found["correct"]["bf16"] == pytest.approx((rounded == targets).float().mean().item())


def test_where_there_is_not_a_bf16_nothing_is_compared(small_digits, monkeypatch):
    monkeypatch.setattr(host, "cpu_has_bf16", lambda: False)
    assert bf16.compare(network(), evaluation_loader(small_digits, "validation"), CPU) is None


@pytest.mark.parametrize(
    ("found", "precision", "why"),
    [
        (FOUND, "bf16", "agrees with fp32 on 99.90 %"),
        (None, "fp32", "was not compared"),
        ({**FOUND, "keeps": False, "agreement": 0.98}, "fp32", "on only 98.00 % of the predictions"),
        ({**FOUND, "batch_ms": {"fp32": 1.0, "bf16": 2.0}}, "fp32", "slower"),
    ],
)
def test_bf16_is_used_where_it_was_found_to_be_as_good_and_faster(has_bf16, found, precision, why):
    checkpoint = SimpleNamespace(metrics={} if found is None else {"bf16": found})
    chosen, reason = bf16.inference_precision(checkpoint, network(), CPU)
    assert chosen == precision and why in reason
    assert bf16.inference_precision(checkpoint, network(), CPU, "fp32") == ("fp32", "set in the recipe")
