from __future__ import annotations

import pytest

from edgekd import plugin_places
from edgekd.errors import UsageError
from edgekd.plugin_places import Kind, folders_in, in_folder, plural, private_name

HYPHENS = Kind("data source", "data.sources", "SOURCE", hyphens=True)


def test_the_plugins_of_a_folder_are_its_files_and_packages_but_not_its_helpers(tmp_path):
    for name in ("two_words.py", "one.py", "_helper.py", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "__init__.py").touch()
    found = list(in_folder("source", HYPHENS, tmp_path, "pkg", "mine"))
    assert [(plugin.name, plugin.module) for plugin in found] == [
        *(("deep", "pkg.deep"), ("one", "pkg.one"), ("two-words", "pkg.two_words"))
    ]
    assert [plugin.place for plugin in found] == [str(tmp_path / name) for name in ("deep", "one.py", "two_words.py")]
    assert {(plugin.attribute, plugin.origin) for plugin in found} == {("SOURCE", "mine")}


def test_folders_of_a_variable_are_each_taken_once(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).mkdir()
    monkeypatch.setenv("SOME_FOLDERS", f"{tmp_path}/b::{tmp_path}/a:{tmp_path}/a/../b")
    assert folders_in("SOME_FOLDERS") == [(tmp_path / name).resolve() for name in "ba"]
    assert folders_in("NO_SUCH_FOLDERS") == []
    (tmp_path / "file").touch()
    monkeypatch.setenv("SOME_FOLDERS", f"{tmp_path}/file")
    with pytest.raises(UsageError, match=r"SOME_FOLDERS names .*file, which is not a folder\n  found: a file"):
        folders_in("SOME_FOLDERS")


def test_a_kinds_folder_has_its_plural():
    assert (plural("source"), plural("models")) == ("sources", "models")


def test_two_folders_are_two_packages(tmp_path):
    names = {private_name(tmp_path), private_name(tmp_path / "other")}
    assert len(names) == 2 and all(name.isidentifier() for name in names)


def test_an_entry_point_is_known_without_its_package_being_imported(tmp_path, monkeypatch):
    info = tmp_path / "shelf-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[edgekd.sources]\nb = nowhere.b\na = nowhere.a:OWN\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = [plugin for plugin in plugin_places.installed("source", HYPHENS) if plugin.origin == "shelf 1.2"]
    assert [(plugin.name, plugin.attribute) for plugin in found] == [("a", "OWN"), ("b", "SOURCE")]
    assert found[0].place == "nowhere.a of shelf 1.2"
