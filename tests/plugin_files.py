"""A user's folder of plugins, and the command line that is run beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd import plugins

SOURCE = """\
from edgekd.data.sources import RawData, Source


def fingerprint(settings):
    return {{"root": str(settings.root)}}


SOURCE = Source(read=lambda settings: RawData((), {{}}), fingerprint=fingerprint, mirror={mirror})
"""


def plugin_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the user names, with one good data source in it."""
    (folder / "sources").mkdir(parents=True)
    (folder / "sources" / "my_source.py").write_text(SOURCE.format(mirror=False))
    monkeypatch.setenv(plugins.FOLDERS, str(folder), prepend=os.pathsep)
    return folder


def edgekd_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekd", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)
