from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest
from click.testing import CliRunner

from edgekd.cli import group
from edgekd.cli.devices import command
from edgekd.devices import profiles
from edgekd.errors import UnknownNameError


def _shown(*arguments: str) -> str:
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_list_has_every_device_and_claims_to_measure_only_here():
    rows = {row["name"]: row for row in json.loads(_shown("list", "--json"))}
    assert tuple(sorted(rows)) == profiles.names()
    assert [name for name, row in rows.items() if row["figures"] == "measured here"] == ["this-machine"]
    assert rows["this-machine"]["engines"] and rows["this-machine"]["memory_gb"] > 0
    assert rows["jetson-nano-4gb"]["precisions"] == ["fp32", "fp16"]


def test_a_folder_of_profiles_is_named_before_the_command(tmp_path):
    profile = "name: my-board\ntitle: Mine\nkind: board\nengines: [onnxruntime]\n"
    (tmp_path / "my-board.yaml").write_text(profile)
    words = ["--profiles", str(tmp_path), "devices", "show", "my-board", "--json"]
    shown = CliRunner().invoke(group, words, catch_exceptions=False)
    assert json.loads(shown.stdout)["title"] == "Mine" and "my-board" not in profiles.names()


def test_the_list_is_one_line_per_device():
    heading, *lines = _shown("list").splitlines()
    assert heading.split()[0] == "name"
    assert [line.split()[0] for line in lines] == list(profiles.names())


def test_a_board_shows_sources_unverified_facts_and_power_modes():
    shown = _shown("show", "jetson-orin-nano-8gb-super")
    assert "from its profile, not measured" in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["memory_bandwidth", "102", "GB/s", "yes", "Ultralytics'", "Jetson", "guide"] in lines
    assert any(line[:4] == ["fp32_peak", "2.09", "TFLOPS", "no"] for line in lines)
    assert any(line[:2] == ["25W", "(default)"] for line in lines)
    assert any(line[:5] == ["MAXN_SUPER", "6", "max", "max", "4"] for line in lines)


def test_brackets_in_a_note_are_not_markup():
    assert "pip install 'edgekd[tensorrt]'" in _shown("show", "rtx-4090")


def test_this_machine_is_read_not_remembered():
    shown = json.loads(_shown("show", "this-machine", "--json"))
    assert shown["facts"] == [] and shown["precisions"] is None
    assert shown["machine"]["arch"] == platform.machine()
    assert json.loads(_shown("show", "jetson-nano-4gb", "--json"))["machine"] is None
    assert platform.machine() in _shown("show", "this-machine")


def test_an_unknown_device_names_the_nearest():
    with pytest.raises(UnknownNameError, match="jetson-orin-nano-8gb"):
        CliRunner().invoke(command, ["show", "jetson-orin-nano"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("show", "jetson-nano"), 2, "did you mean 'jetson-nano-4gb'"),
        (("show",), 2, "Missing argument 'NAME'"),
        (("lst",), 2, "No such command 'lst'"),
    ],
)
def test_a_command_of_a_group_fails_like_any_other(arguments, code, message):
    shown = subprocess.run([sys.executable, "-m", "edgekd", "devices", *arguments], capture_output=True, text=True)
    assert (shown.returncode, shown.stdout) == (code, "")
    assert message in shown.stderr and "Traceback" not in shown.stderr


@pytest.mark.parametrize("name", command.commands)
def test_help_of_each_imports_nothing_heavy(name):
    code = "import atexit, sys; from edgekd.cli import main; "
    code += "atexit.register(lambda: print(sorted({'rich', 'pydantic', 'numpy', 'yaml'} & set(sys.modules)))); "
    code += f"sys.argv = ['edgekd', 'devices', {name!r}, '--help']; main()"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0 and shown.stdout.startswith("Usage: edgekd devices ")
    assert shown.stdout.rstrip().endswith("[]")
