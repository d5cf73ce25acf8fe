"""A round as Flower messages."""

from __future__ import annotations

import logging
from importlib.util import find_spec

import numpy as np
import pytest

from edgekd.distillation.federation import flower
from edgekd.errors import TrainingError

if find_spec("flwr") is None:  # a machine that runs the GPU tests alone needs no Flower
    pytest.skip("Flower is an extra of its own, which scripts/test installs", allow_module_level=True)
flower()
from edgekd.distillation.federation.apps import exchange, mean_logits  # noqa: E402


def counting(client: int, consensus: np.ndarray | None) -> tuple[np.ndarray, float]:
    """A client whose logits are its number plus the last consensus."""
    value = client + (0.0 if consensus is None else float(consensus[0, 0, 0]))
    return np.full((1, 2, 3), value, "f2"), value


def test_a_mean_of_half_precision_logits_does_not_overflow_on_the_way():
    votes = [np.array([[[1.0, 60000.0]]], "f2"), np.array([[[2.0, 60000.0]]], "f2")]
    assert mean_logits(votes).tolist() == [[[1.5, 60000.0]]]


def test_messages_carry_logits_both_ways():
    # Round 1: 1 and 2, mean 1.5. Round 2: 1 + 1.5 = 2.5 and 2 + 1.5 = 3.5, mean 3.
    first, one = exchange(counting, 2, None)
    second, two = exchange(counting, 2, first)
    assert (float(first[0, 0, 0]), float(second[0, 0, 0])) == (1.5, 3.0)
    assert (one["losses"], two["losses"]) == ([1.0, 2.0], [2.5, 3.5])
    # 6 half-precision numbers per client; nothing comes down in the first round.
    assert (one["bytes_down"], two["bytes_down"]) == (0, two["bytes_up"])
    assert one["bytes_up"] >= 2 * 12


def test_clients_train_in_the_order_of_their_numbers():
    """Flower shuffles them."""
    order: list[int] = []

    def train(client: int, consensus: np.ndarray | None) -> tuple[np.ndarray, float]:
        order.append(client)
        return np.zeros((1, 1, 2), "f2"), 0.0

    exchange(train, 8, None)
    assert order == list(range(1, 9))


def test_an_error_in_a_client_is_raised_unchanged():
    def broken(client: int, consensus: np.ndarray | None) -> tuple[np.ndarray, float]:
        raise TrainingError(f"client {client}")

    with pytest.raises(TrainingError, match="client 1"):
        exchange(broken, 2, None)


def test_flower_prints_and_reports_nothing():
    assert not any(logging.getLogger(name).handlers for name in ("flwr", "flwr-telemetry"))
    assert logging.getLogger("flwr").level == logging.WARNING
