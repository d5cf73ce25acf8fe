from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.bench.sensors import CpuTimes
from edgekd.errors import UsageError
from edgekd.runtime.preprocess import InputShape
from edgekd.training import host
from edgekd.training.host import all_threads, has_depthwise, resolve_precision, spare_threads, threads


def test_depthwise_networks_train_in_single_precision_on_a_cpu():
    depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8))
    cpu = torch.device("cpu")
    assert has_depthwise(depthwise) and resolve_precision("auto", depthwise, cpu) == "fp32"
    assert resolve_precision("bf16", depthwise, cpu) == "bf16"


@pytest.mark.parametrize(("side", "trains_in"), [(8, "fp32"), (16, "bf16")])
def test_a_stride_larger_than_its_input_is_not_trained_in_bf16_on_a_cpu(monkeypatch, side, trains_in):
    """PyTorch leaves such a convolution's weight gradient unwritten."""
    monkeypatch.setattr(host, "cpu_has_bf16", lambda: True)
    model = nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Flatten())
    cpu = torch.device("cpu")
    assert host.training_precision("auto", model, cpu, InputShape(3, side, side)) == trains_in
    if trains_in == "fp32":
        with pytest.raises(UsageError, match="wrong gradients on a CPU for 1"):
            host.training_precision("bf16", model, cpu, InputShape(3, side, side))
    assert host.training_precision("fp32", model, cpu, InputShape(3, side, side)) == "fp32"


@pytest.mark.parametrize(
    ("busy_of_others", "seconds", "used", "room"),
    [
        (0.0, 1.0, 0.0, 4),
        (0.4, 1.0, 0.4, 4),  # what any machine does
        (1.5, 1.0, 1.5, 2),
        (4.0, 1.0, 4.0, 1),
        (4.0, 0.1, 0.0, 4),  # too soon to say
    ],
)
def test_threads_get_the_cores_that_others_leave(monkeypatch, busy_of_others, seconds, used, room):
    """4 cores, on which this process runs 4 threads; a second has 4 core-seconds."""
    own = min(4.0, 4.0 - busy_of_others)
    readings = [CpuTimes(100.0, 50.0, 10.0), CpuTimes(104.0, 50.0 + busy_of_others + own, 10.0 + own)]
    times = [10.0, 10.0 + seconds]
    monkeypatch.setattr(host, "cpu_times", lambda: readings[0] if len(times) == 2 else readings[1])
    monkeypatch.setattr(host.psutil, "cpu_count", lambda: 4)
    monkeypatch.setattr(host.time, "monotonic", lambda: times[0])
    load = host.Load()
    times.pop(0)
    assert load.used() == pytest.approx(used) and load.room(4) == room
    load.begin_anew()
    assert load.used() == pytest.approx(used)  # until more is known


class _Busy:
    """A machine of which others leave one core."""

    told = None

    def room(self, count):
        return 1

    def tell(self, count, chosen):
        self.told = (count, chosen)

    def wait(self):
        pass

    def begin_anew(self):
        pass


def test_threads_are_no_more_than_the_usable_cores_unless_set(monkeypatch):
    monkeypatch.setattr(host, "usable_cores", lambda: 2)
    with threads(3):
        assert all_threads() == 3  # OMP_NUM_THREADS is set
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert all_threads() == 2


def test_a_stage_runs_on_the_cores_that_others_leave_and_a_training_may_try_all(monkeypatch):
    monkeypatch.setattr(host, "usable_cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS")
    load = _Busy()
    with threads(3):
        with spare_threads(load):
            assert torch.get_num_threads() == 1 and all_threads() == 2 and load.told == (2, 1)
        assert torch.get_num_threads() == 3
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        with spare_threads(load):
            assert torch.get_num_threads() == 3 and load.told == (3, 3)


@pytest.mark.parametrize(("used", "words"), [(1.4, "1 of its 4"), (3.9, "4 of its 4"), (0.3, None)])
def test_a_busy_machine_is_told(monkeypatch, caplog, used, words):
    monkeypatch.setattr(host.psutil, "cpu_count", lambda: 4)
    monkeypatch.setattr(host.Load, "used", lambda self: used)
    host.Load().tell(4, 2)
    told = [f"the machine is busy: other processes use {words} cores; working on 2 threads"] if words else []
    assert [record.getMessage() for record in caplog.records] == told


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_trains_in_bf16_where_it_can():
    expected = "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    assert resolve_precision("auto", torch.nn.Linear(1, 1), torch.device("cuda")) == expected
