from __future__ import annotations

from pathlib import Path

import pytest

from edgekd import plugins
from edgekd.recipe import load as recipes
from edgekd.runs import Run
from edgekd.stages import data
from edgekd.store.store import Store


def test_edited_code_of_a_source_from_outside_prepares_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "plugins" / "sources" / "my_digits.py"
    file.parent.mkdir(parents=True)
    file.write_text("from edgekd.data.sources.digits import SOURCE\n")
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path / "plugins"))
    recipe = recipes.from_mapping(
        {
            "name": "shoes",
            "data": {"source": "my-digits", "image_size": 8, "limit": 64},
            "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
            "student": {"model": "cifar/resnet8"},
        }
    )
    run = Run(recipe.settings, Store(tmp_path / "run"))
    places = [data.data(run).path for _ in range(2)]
    file.write_text(file.read_text() + "# changed\n")
    places.append(data.data(run).path)
    assert places[0] == places[1] != places[2]
