from __future__ import annotations

import io
import logging
import time

import pytest
from huggingface_hub import constants
from huggingface_hub import logging as hub_log

from edgekd.errors import ModelError
from edgekd.models import build as builder
from edgekd.models.architecture import Architecture
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


@pytest.mark.parametrize(("verbosity", "said"), [(logging.WARNING, False), (logging.INFO, True)])
def test_attempts_without_a_connection_are_one_message(tmp_path, monkeypatch, verbosity, said):
    """Nothing listens on port 9 of this machine. Only the waits between the attempts are left out."""
    place = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"http://127.0.0.1:9{place}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    before = hub_log.get_verbosity()
    handler = logging.StreamHandler(lines := io.StringIO())
    logging.getLogger("huggingface_hub").addHandler(handler)
    hub_log.set_verbosity(verbosity)
    try:
        with pytest.raises(ModelError, match=r"timm/resnet18 cannot be fetched(?s:.)*set checkpoint to the folder"):
            builder.build(Architecture(model="timm/resnet18", num_classes=1000), pretrained=True)
        assert hub_log.get_verbosity() == verbosity
    finally:
        hub_log.set_verbosity(before)
        logging.getLogger("huggingface_hub").removeHandler(handler)
    assert ("thrown while requesting HEAD http://127.0.0.1:9/" in lines.getvalue()) == said
