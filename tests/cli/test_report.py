from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from records import sample_record

from edgekd.cli.report import command
from edgekd.errors import ArtifactError, StoreError
from edgekd.report.html import render


@pytest.fixture
def run(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(sample_record()))
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False).stdout


def test_a_runs_page_is_written_again_beside_its_record(run):
    (run / "report.html").write_text("of an older version")
    assert invoke(run) == f"{run / 'report.html'}\n"
    assert (run / "report.html").read_text(encoding="utf-8") == render(sample_record())


def test_a_record_by_itself_goes_where_it_is_asked_to(run):
    page = run / "page.html"
    assert invoke(run / "report.json", "--out", page) == f"{page}\n"
    assert page.read_text(encoding="utf-8") == render(sample_record()) and not (run / "report.html").exists()


def test_a_page_that_cannot_be_written_and_a_record_that_is_none_say_what_to_do(run, tmp_path):
    with pytest.raises(StoreError, match=r"/dev/full/x.html cannot be written\n  found: NotADir(?s:.)*--out"):
        invoke(run, "--out", "/dev/full/x.html")
    (run / "report.json").write_text("null")
    with pytest.raises(ArtifactError, match=r"not a JSON object(?s:.)*next: restore it, or.* run the recipe again"):
        invoke(run)


def test_a_record_that_is_not_valid_leaves_the_page_as_it_was(run):
    (run / "report.html").write_text("earlier")
    (run / "report.json").write_text(json.dumps({**sample_record(), "models": 3}))
    with pytest.raises(ArtifactError, match="models"):
        invoke(run)
    assert (run / "report.html").read_text() == "earlier"
