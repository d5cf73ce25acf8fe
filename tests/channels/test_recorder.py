"""Labels follow whatever only moves values, whichever question is asked."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from edgekd.channels.recorder import CONSTANT, ChannelRecorder, along


class _Sums(ChannelRecorder):
    """Combines elements as a sum does; knows no layer."""

    def pointwise(self, func, result, args, kwargs):
        self.give(result, self.merged([args[0], args[1]], result.shape))
        return True


def _recorded(compute, channels: int = 4):
    recorder, values = _Sums({}), torch.ones(1, channels, 2, 2)
    recorder.begin(values, [recorder.fresh() for _ in range(channels)], dim=1)
    with recorder:
        result = compute(values)
    return recorder, result


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda x: torch.cat([x[:, 2:], x[:, :2]], 1), [2, 3, 0, 1]),
        (lambda x: x.view(1, 2, 2, 2, 2).transpose(1, 2).reshape(1, 4, 2, 2), [0, 2, 1, 3]),
        (lambda x: F.pad(x, (0, 0, 0, 0, 1, 0)), [CONSTANT, 0, 1, 2, 3]),
        (lambda x: torch.cat([x, torch.zeros(1, 1, 2, 2)], 1), [0, 1, 2, 3, CONSTANT]),
        (lambda x: F.max_pool2d(x, 2).flatten(1), [0, 1, 2, 3]),
        (lambda x: x.mean((2, 3)), [0, 1, 2, 3]),
    ],
)
def test_labels_move_as_values_do(compute, expected):
    recorder, result = _recorded(compute)
    assert along(recorder.labels(result), 1) == expected
    assert not recorder.unknown and not recorder.kept


def test_channels_that_meet_are_one_and_zeros_meet_none():
    recorder, _ = _recorded(lambda x: x[:, 1:3] + F.pad(x[:, :1], (0, 0, 0, 0, 1, 0)))
    assert [recorder.root(label) for label in range(4)] == [0, 1, 0, 3]


def test_the_channels_of_an_operator_without_a_rule_are_kept():
    recorder, result = _recorded(lambda x: x[:, :3].softmax(1))
    assert recorder.kept == {0, 1, 2} and list(recorder.unknown) == ["aten::_softmax"]
    assert along(recorder.labels(result), 1) == [CONSTANT] * 3
