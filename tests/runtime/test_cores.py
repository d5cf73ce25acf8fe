from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.runtime.cores import cpu_quota, usable_cores


def written(root: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


GROUPS, V1 = "sys/fs/cgroup", "12:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n"


@pytest.mark.parametrize(
    ("texts", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", f"{GROUPS}/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/\n", f"{GROUPS}/cpu.max": "max 100000\n"}, None),
        # The group itself is free, the one above it is not.
        (
            {
                "proc/self/cgroup": "0::/pod/app\n",
                f"{GROUPS}/pod/app/cpu.max": "max 100000\n",
                f"{GROUPS}/pod/cpu.max": "200000 50000\n",
            },
            4.0,
        ),
        # The smallest of both.
        (
            {
                "proc/self/cgroup": "0::/pod/app\n",
                f"{GROUPS}/pod/app/cpu.max": "50000 100000\n",
                f"{GROUPS}/pod/cpu.max": "300000 100000\n",
            },
            0.5,
        ),
        # Version 1: the host's path, but the container's own group is mounted as the root.
        (
            {
                "proc/self/cgroup": V1,
                f"{GROUPS}/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
                f"{GROUPS}/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": V1,
                f"{GROUPS}/cpu/docker/ab/cpu.cfs_quota_us": "300000\n",
                f"{GROUPS}/cpu/docker/ab/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": V1,
                f"{GROUPS}/cpu/cpu.cfs_quota_us": "-1\n",
                f"{GROUPS}/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        # Both versions mounted, as older systemd does it.
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/\n0::/\n",
                f"{GROUPS}/unified/cpu.max": "max 100000\n",
                f"{GROUPS}/cpu/cpu.cfs_quota_us": "100000\n",
                f"{GROUPS}/cpu/cpu.cfs_period_us": "100000\n",
            },
            1.0,
        ),
        # What is damaged is no quota.
        ({"proc/self/cgroup": "nonsense\n0::/../up\n::\n", f"{GROUPS}/cpu.max": "0 0\n"}, None),
        ({"proc/self/cgroup": "0::/\n", f"{GROUPS}/cpu.max": ""}, None),
    ],
)
def test_the_quota_of_a_containers_groups(tmp_path, texts, quota):
    assert cpu_quota(written(tmp_path, texts)) == quota


def test_cores_are_those_bound_to_within_the_quota(tmp_path):
    bound = len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path) == bound
    for quota, cores in (("50000", 1), ("199999", 1), (str(100_000 * bound), bound), ("9900000", min(bound, 99))):
        root = written(tmp_path, {"proc/self/cgroup": "0::/\n", f"{GROUPS}/cpu.max": f"{quota} 100000\n"})
        assert usable_cores(root) == cores


def test_a_process_bound_to_one_core_has_one():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from edgekd.runtime.cores import usable_cores; print(usable_cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
