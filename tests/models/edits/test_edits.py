"""Every edit of a network keeps its contract."""

from __future__ import annotations

import pytest

from edgekd import plugins
from edgekd.models.edits import Edit


@pytest.mark.parametrize("name", plugins.names("edit"))
def test_an_edit_states_which_networks_it_builds(name):
    edit = plugins.load("edit", name)
    assert isinstance(edit, Edit)
    part = {"model": "cifar/resnet8", "num_classes": 2}
    built = edit.architectures({"edit": name, "experts": [part]})
    assert [each.model for each in built] == (["cifar/resnet8"] if name == "experts" else [])
