"""The example in the docstring of edgekd.run."""

from __future__ import annotations

import doctest

import edgekd


def test_the_example_of_run_works_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(edgekd.run, "run", globs={})
    shown: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=shown.append)
    assert result.attempted > 1 and result.failed == 0, "".join(shown)
    assert (tmp_path / "runs" / "tiny" / "report.json").is_file()
