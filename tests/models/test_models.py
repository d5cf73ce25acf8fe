from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgekd import plugins
from edgekd.errors import PluginError


@pytest.mark.parametrize(("kind", "module"), [("models", "sources.cifar"), ("edit", "edits.prune")])
def test_an_object_of_another_type_is_refused(kind, module, monkeypatch):
    monkeypatch.setattr(f"edgekd.models.{module}.{plugins.KINDS[kind].attribute}", SimpleNamespace())
    with pytest.raises(PluginError, match="is of type SimpleNamespace"):
        plugins.load(kind, module.partition(".")[2])
