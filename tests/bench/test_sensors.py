from __future__ import annotations

import mmap

import numpy as np
import pytest

from edgekd.bench import sensors
from edgekd.bench.sensors import CpuTimes, others_share


def test_zones_by_name_without_those_that_are_switched_off(tmp_path):
    zones = {"thermal_zone0": ("cpu-thermal", "48500"), "thermal_zone1": ("gpu-thermal", "47031")}
    zones["thermal_zone2"] = ("cpu-thermal", "50000")
    for name, (kind, temperature) in zones.items():
        folder = tmp_path / "sys/class/thermal" / name
        folder.mkdir(parents=True)
        (folder / "type").write_text(kind + "\n")
        (folder / "temp").write_text(temperature + "\n")
    (tmp_path / "sys/class/thermal/thermal_zone3").mkdir()
    expected = {"cpu-thermal": 48.5, "gpu-thermal": 47.031, "cpu-thermal thermal_zone2": 50.0}
    assert sensors.temperatures_c(tmp_path) == expected


def test_the_clock_of_a_jetsons_gpu(tmp_path):
    folder = tmp_path / "sys/class/devfreq/17000000.gpu"
    folder.mkdir(parents=True)
    (folder / "cur_freq").write_text("624750000\n")
    assert sensors.clocks_mhz(tmp_path)["gpu"] == 624.8


def test_touched_memory_is_seen():
    before, _ = sensors.resident_bytes()
    # Fresh pages of the system: what NumPy allocates may be memory that was freed before, and is resident already.
    pages = mmap.mmap(-1, 64_000_000)
    np.frombuffer(pages, np.uint8)[:] = 1
    now, peak = sensors.resident_bytes()
    assert now - before > 0.9 * len(pages)
    assert peak >= now


@pytest.mark.parametrize(
    "after, share",
    [
        (CpuTimes(110.0, 55.0, 5.0), 0.0),  # we alone were busy
        (CpuTimes(110.0, 58.0, 5.0), 0.3),  # 8 s of work in 10 s, 5 of them ours
        (CpuTimes(110.0, 54.0, 5.0), 0.0),  # the kernel's ticks are coarse: never below zero
        (CpuTimes(100.0, 50.0, 0.0), 0.0),  # no time has passed
    ],
)
def test_the_share_of_others(after, share):
    assert others_share(CpuTimes(100.0, 50.0, 0.0), after) == pytest.approx(share)


def test_own_work_is_not_the_work_of_others():
    before = sensors.cpu_times()
    sum(range(3_000_000))
    after = sensors.cpu_times()
    assert after.own > before.own
    assert after.total >= before.total
