from __future__ import annotations

import getpass
import platform
from pathlib import Path

import pytest

from edgekd.bench import environment as module
from edgekd.bench.environment import emulation_warning, environment, fingerprint, require_real_processor
from edgekd.errors import BenchError
from edgekd.runtime.cores import usable_cores

JETSON = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd42\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
}


def test_this_machine():
    env = environment()
    assert env.cores == usable_cores()
    assert env.ram_bytes > 1e8
    assert env.engines["ONNX Runtime"]
    assert env.cpu and env.os


def test_no_host_and_no_user():
    text = environment().model_dump_json()
    assert f'"{platform.node()}"' not in text
    assert f'"{getpass.getuser()}"' not in text


def test_a_jetson_is_read_from_its_files(tmp_path: Path):
    for name, text in JETSON.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    env = environment(tmp_path)
    assert env.l4t == "36.4.3"
    assert env.board == env.cpu == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert env.os == "Ubuntu 22.04.5 LTS" and env.instruction_sets is None
    assert env.governor == "schedutil"


def test_the_quota_of_a_container_counts_as_its_cores(tmp_path: Path):
    for name, text in (("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "100000 100000\n")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert environment(tmp_path).cores == 1


def test_a_bare_system_is_reported_as_such(tmp_path: Path):
    env = environment(tmp_path)
    assert (env.board, env.governor, env.l4t) == (None, None, None)
    assert env.cpu == platform.machine()


def test_the_fingerprint_changes_with_what_decides_speed_and_with_nothing_else():
    env = environment()
    sets = env.instruction_sets or ()
    same = env.model_copy(
        update={"kernel": "9.9", "python": "3.99", "ram_bytes": 1, "instruction_sets": (*sets, "amx_tile")}
    )
    assert fingerprint(same) == fingerprint(env)
    engines = {**env.engines, "TensorRT": "0"}
    for change in (
        {"cores": 99},
        {"cpu": "x"},
        {"engines": {}},
        {"engines": engines},
        {"power_mode": "15W"},
        {"emulated": "a sign"},
        {"instruction_sets": (*sets, "i8mm", "amx_int8")},  # not both are here
    ):
        assert fingerprint(env.model_copy(update=change)) != fingerprint(env)


def test_an_emulated_processor_is_recorded_warned_about_and_refused_where_a_latency_decides(monkeypatch):
    assert environment().emulated is None and emulation_warning(environment()) is None
    require_real_processor("budget.latency_ms")
    monkeypatch.setattr(module, "emulation", lambda *root: "a sign")
    assert environment().emulated == "a sign"
    assert emulation_warning(environment()) == (
        "The processor is emulated: a sign. Latencies from here are not those of any hardware."
    )
    with pytest.raises(BenchError, match="budget.latency_ms needs a latency(?s:.)*found: a sign"):
        require_real_processor("budget.latency_ms")
