from __future__ import annotations

import os

import pytest

from edgekd import plugins
from edgekd.devices import profiles
from edgekd.errors import UnknownNameError, UsageError

BOARDS = [name for name in profiles.names() if name != "this-machine"]
BOARD = """\
name: board
title: A board
kind: board
facts:
  - {figure: memory_bandwidth, value: 102.4, unit: GB/s, source: data sheet, verified: false}
  - {figure: jetpack, value: "6.2", source: data sheet, verified: true}
"""


def test_every_shipped_profile_is_valid_and_this_machine_claims_no_figures():
    assert [profiles.find(name).name for name in profiles.names()] == list(profiles.names())
    here = profiles.find("this-machine")
    assert here.kind == "local"
    assert here.facts == here.power_modes == here.engines == []
    assert here.arch is here.precisions is None


@pytest.mark.parametrize("name", BOARDS)
def test_a_shipped_board_states_what_it_runs_and_where_every_figure_stands(name):
    board = profiles.find(name)
    assert board.kind == "board" and board.arch and board.precisions
    assert board.engines and set(board.engines) <= set(plugins.names("backend"))
    figures = [fact.figure for fact in board.facts]
    assert len(figures) == len(set(figures))
    assert {"memory", "memory_bandwidth", "fp32_peak"} <= set(figures)
    # A latency is measured, never part of a profile.
    assert not any(word in figure for figure in figures for word in ("latency", "_ms", "fps"))
    for fact in board.facts:
        doubtful = fact.source.startswith(("computed", "remembered"))
        assert not (fact.verified and doubtful), fact


@pytest.mark.parametrize("name", BOARDS)
def test_peaks_follow_from_cores_and_clock(name):
    board = profiles.find(name)
    cores, clock, peak = (board.fact(figure) for figure in ("cuda_cores", "gpu_max_clock", "fp32_peak"))
    if cores is not None:
        assert peak.value == pytest.approx(2 * cores.value * clock.value * 1e-6, rel=0.01)
    if board.fact("int8_peak") is not None:
        assert board.fact("int8_peak").value == pytest.approx(2 * board.fact("fp16_peak").value, rel=0.01)
        assert "int8" in board.precisions


@pytest.mark.parametrize("name", BOARDS)
def test_power_modes_stay_within_the_board(name):
    board = profiles.find(name)
    modes = board.power_modes
    assert len({mode.name for mode in modes}) == len(modes)
    assert sum(mode.default for mode in modes) == bool(modes)
    for mode in modes:
        assert mode.cpu_cores <= board.fact("cpu_cores").value
        assert (mode.gpu_mhz or 0) <= board.fact("gpu_max_clock").value
        # A cluster (TPC) of these GPUs has two multiprocessors (SM).
        assert 2 * (mode.gpu_tpcs or 0) <= board.fact("gpu_sm").value


def test_pruning_fills_int8_tensor_cores_where_there_are_some():
    widths = {name: profiles.find(name).channel_multiple for name in profiles.names()}
    assert widths["jetson-orin-nano-8gb"] == widths["jetson-xavier-nx-8gb"] == widths["jetson-agx-thor"] == 16
    assert widths["jetson-nano-4gb"] == widths["raspberry-pi-5"] == widths["this-machine"] == 8


def test_a_fact_keeps_its_unit_and_whether_it_is_verified(tmp_path):
    (tmp_path / "board.yaml").write_text(BOARD)
    bandwidth, jetpack = profiles.find("board", tmp_path).facts
    assert (bandwidth.value, bandwidth.unit, bandwidth.verified) == (102.4, "GB/s", False)
    assert (jetpack.value, jetpack.unit) == ("6.2", None)
    board = profiles.find("board", tmp_path)
    assert board.fact("jetpack") == jetpack
    assert board.fact("latency") is None


def test_folders_of_the_user_come_before_edgekds(tmp_path, monkeypatch):
    (tmp_path / "board.yaml").write_text(BOARD)
    monkeypatch.setenv(profiles.FOLDERS, os.pathsep.join([str(tmp_path), str(profiles.own_folder())]))
    assert profiles.find("board").title == "A board"
    assert profiles.names() == tuple(sorted(["board", "this-machine", *BOARDS]))
    assert profiles.find("raspberry-pi-5").kind == "board"


def test_a_name_twice_names_both_files(tmp_path, monkeypatch):
    (tmp_path / "rtx-3090.yaml").write_text(BOARD.replace("name: board", "name: rtx-3090"))
    monkeypatch.setenv(profiles.FOLDERS, str(tmp_path))
    with pytest.raises(UsageError) as caught:
        profiles.find("rtx-3090")
    for folder in (tmp_path, profiles.own_folder()):
        assert str(folder / "rtx-3090.yaml") in str(caught.value)
    monkeypatch.setenv(profiles.FOLDERS, str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="EDGEKD_PROFILES names"):
        profiles.names()


def test_unknown_device_names_the_nearest():
    with pytest.raises(UnknownNameError, match="this-machine"):
        profiles.find("this-machin")


@pytest.mark.parametrize("name", ["../pyproject", "/etc/passwd", ""])
def test_a_name_is_not_a_path(name):
    with pytest.raises(UnknownNameError):
        profiles.find(name)


@pytest.mark.parametrize(
    "text, message",
    [
        ("name: [", "cannot be read as YAML"),
        ("- a\n- b\n", "is not a profile"),
        ("", "is not a profile"),
        (BOARD.replace("title", "titel"), "title: Field required"),
        (BOARD.replace("verified: false", "verified: 7"), "facts.0.verified"),
        (BOARD.replace("source: data sheet, ", ""), "facts.0.source: Field required"),
        (BOARD + "precisions: [int4]\n", "precisions.0"),
        (BOARD + "arch: arm64\n", "arch"),
        (BOARD + "channel_multiple: 0\n", "channel_multiple"),
        (BOARD + "power_modes: [{name: MAXN, id: 0, cpu_cores: 4, source: a file}]\n", "power_modes.0.id"),
        (BOARD + "power_modes: [{name: MAXN, gpu_mhz: -1, cpu_cores: 4, source: a file}]\n", "power_modes.0.gpu_mhz"),
        (BOARD.replace("name: board", "name: other"), "name differs from the file's name"),
        (BOARD.encode() + b"\xff", "cannot be read as YAML"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    (tmp_path / "board.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        profiles.find("board", tmp_path)
    assert str(tmp_path / "board.yaml") in str(caught.value)
    assert message in str(caught.value)
