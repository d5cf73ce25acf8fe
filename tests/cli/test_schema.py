from __future__ import annotations

import json

from click.testing import CliRunner

from edgekd.cli.schema import command


def test_the_schema_is_json():
    assert json.loads(CliRunner().invoke(command, []).stdout)["title"] == "RecipeSettings"
