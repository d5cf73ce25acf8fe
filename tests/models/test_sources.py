"""Every model source and every edit keeps its contract."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgekd import plugins
from edgekd.errors import PluginError
from edgekd.models.edits import Edit
from edgekd.models.sources import ModelSource


@pytest.mark.parametrize("name", plugins.names("models"))
def test_a_source_lists_what_it_can_build(name):
    source = plugins.load("models", name)
    assert isinstance(source, ModelSource)
    smallest = {"timm": "test_vit", "torchvision": "squeezenet1_1", "cifar": "resnet8"}[name]
    assert smallest in source.names()
    network = source.build(smallest, num_classes=3)
    assert any(parameter.shape[:1] == (3,) for parameter in network.parameters())


@pytest.mark.parametrize("name", plugins.names("edit"))
def test_an_edit_says_which_networks_it_builds(name):
    edit = plugins.load("edit", name)
    assert isinstance(edit, Edit)
    part = {"model": "cifar/resnet8", "num_classes": 2}
    built = edit.architectures({"edit": name, "experts": [part]})
    assert [each.model for each in built] == (["cifar/resnet8"] if name == "experts" else [])


@pytest.mark.parametrize(("kind", "module"), [("models", "sources.cifar"), ("edit", "edits.prune")])
def test_an_object_of_another_type_is_refused(kind, module, monkeypatch):
    monkeypatch.setattr(f"edgekd.models.{module}.{plugins.KINDS[kind].attribute}", SimpleNamespace())
    with pytest.raises(PluginError, match="is of type SimpleNamespace"):
        plugins.load(kind, module.partition(".")[2])
