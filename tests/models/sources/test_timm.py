from __future__ import annotations

import pytest

from edgekd.models.sources import timm


def test_how_many_classes_published_weights_know():
    assert timm.published_classes("resnet18") == 1000
    with pytest.raises(ValueError, match="no published weights of timm/test_no_such"):
        timm.published_classes("test_no_such")


def test_arguments_reach_the_network():
    narrow, wide = (timm.build("test_byobnet", num_classes=4, in_chans=channels) for channels in (1, 3))
    assert next(narrow.parameters()).shape[1] == 1 and next(wide.parameters()).shape[1] == 3


def test_how_weights_are_brought_where_there_is_no_connection():
    assert "resnet18" in timm.bring("resnet18") and "set checkpoint to the folder" in timm.bring("resnet18")
    assert timm.bring("test_no_such").startswith("download a file of its weights")
