from __future__ import annotations

import pytest

from edgekd import profiles
from edgekd.errors import UnknownNameError, UsageError

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
    assert here.facts == []


def test_a_board_keeps_unit_source_and_doubt(tmp_path):
    (tmp_path / "board.yaml").write_text(BOARD)
    bandwidth, jetpack = profiles.find("board", tmp_path).facts
    assert (bandwidth.value, bandwidth.unit, bandwidth.verified) == (102.4, "GB/s", False)
    assert (jetpack.value, jetpack.unit) == ("6.2", None)


def test_unknown_device_names_the_nearest():
    with pytest.raises(UnknownNameError, match="this-machine"):
        profiles.find("this-machin")


@pytest.mark.parametrize("name", ["../pyproject", "/etc/passwd", ""])
def test_a_name_is_no_path(name):
    with pytest.raises(UnknownNameError):
        profiles.find(name)


@pytest.mark.parametrize(
    "text, message",
    [
        ("name: [", "cannot be read as YAML"),
        ("- a\n- b\n", "is no profile"),
        ("", "is no profile"),
        (BOARD.replace("title", "titel"), "title: Field required"),
        (BOARD.replace("verified: false", "verified: 7"), "facts.0.verified"),
        (BOARD.replace("source: data sheet, ", ""), "facts.0.source: Field required"),
        (BOARD.replace("name: board", "name: other"), "name is not the file's"),
        (BOARD.encode() + b"\xff", "cannot be read as YAML"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    (tmp_path / "board.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        profiles.find("board", tmp_path)
    assert str(tmp_path / "board.yaml") in str(caught.value)
    assert message in str(caught.value)
