from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from edgekd import plugins
from edgekd.cli.plugins import command


def test_one_line_per_kind_with_all_its_names():
    shown = CliRunner().invoke(command, ["scheme"], catch_exceptions=False)
    assert shown.stdout == f"scheme    {', '.join(plugins.names('scheme'))}\n"


def test_json_has_every_plugins_file():
    found = json.loads(CliRunner().invoke(command, ["--json"], catch_exceptions=False).stdout)
    assert list(found) == plugins.outside_kinds()
    assert [row["name"] for row in found["source"]] == list(plugins.names("source"))
    assert all(Path(row["file"]).is_file() and row["broken"] is None for rows in found.values() for row in rows)
