"""Plugins of edgekd, of installed packages and of the user's folders. Tests write into temporary folders only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from plugin_files import SOURCE, edgekd_command, plugin_folder

import edgekd
from edgekd import plugins
from edgekd.bench.measurement import ModelFile
from edgekd.bench.process import Job, Options, Target
from edgekd.data.sources import Source, source_named
from edgekd.errors import PluginError, PluginWarning, RecipeError, UnknownNameError, UsageError
from edgekd.plugin_places import plural
from edgekd.recipe import load as recipes
from edgekd.recipe.settings import DataSettings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return plugin_folder(tmp_path / "mine", monkeypatch)


def _install(site: Path, name: str, points: str, files: dict[str, str]) -> None:
    """What an installer leaves of a package: its files, and metadata with its entry points."""
    for file, text in files.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(text)
    metadata = site / f"{name}-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(points)


def _code(source: str) -> str:
    return plugins.code_key("source", source)["code"]


# Some of each kind that must be there. A new kind needs a line here: without plugins it would be tested by nothing.
EXPECTED = {
    "backend": {"onnxruntime", "tensorrt"},
    "command": {"bench", "distill", "run"},
    "source": {"cifar10", "digits", "image-folder"},
    "edit": {"prune", "quantize", "reuse_classifier"},
    "method": {"kd", "cross_entropy", "crd", "fitnets"},
    "scheme": {"offline", "online"},
    "models": {"cifar", "timm", "torchvision"},
    "variant": {"fp32", "fp16", "int8", "int8-asym"},
}


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_kind_has_its_plugins_and_each_loads(kind):
    found = {name: plugins.load(kind, name) for name in plugins.names(kind)}
    assert found.keys() >= EXPECTED[kind]
    wanted = plugins.contract(kind) if plugins.KINDS[kind].contract else ModuleType
    assert all(isinstance(plugin, wanted) for plugin in found.values())


def test_an_unknown_name_is_answered_with_the_nearest(folder):
    with pytest.raises(UnknownNameError, match=r"unknown distillation method 'kdd'(?s:.)*did you mean 'kd'"):
        plugins.load("method", "kdd")
    with pytest.raises(UnknownNameError, match="did you mean 'my-source'"):
        source_named("my-sorce")


def test_a_file_in_a_folder_is_a_plugin_on_the_command_line(folder):
    shown = edgekd_command("--plugins", str(folder), "plugins", "source", EDGEKD_PLUGINS="")
    assert f"my-source  ({folder})" in shown.stdout, shown.stderr
    assert "my-source" in edgekd_command("plugins", "sources", EDGEKD_PLUGINS=str(folder)).stdout
    assert "my-source" not in edgekd_command("plugins", "sources", EDGEKD_PLUGINS="").stdout


def test_a_file_in_a_folder_loads_with_its_helpers(folder):
    (folder / "sources" / "_words.py").write_text("MIRROR = True\n")
    (folder / "sources" / "my_other.py").write_text("from . import _words\n" + SOURCE.format(mirror="_words.MIRROR"))
    assert plugins.names("source")[-2:] == ("my-other", "my-source")
    assert source_named("my-other").mirror and not source_named("my-source").mirror
    assert source_named("my-other").fingerprint(DataSettings(source="my-other", root=Path("x"))) == {"root": "x"}


def test_recipes_and_their_schema_know_it_by_name(folder):
    mapping = {
        "name": "shoes",
        "data": {"source": "my-source"},
        "teacher": {"model": "cifar/resnet20", "train": {"epochs": 1}},
        "student": {"model": "cifar/resnet8"},
    }
    assert recipes.from_mapping(mapping).settings.data.source == "my-source"
    with pytest.raises(RecipeError, match="did you mean 'my-source'"):
        recipes.from_mapping({**mapping, "data": {"source": "my-soource"}})
    from edgekd.recipe.schema import json_schema

    assert "my-source" in [section["title"] for section in json_schema()["$defs"]["DataSettings"]["oneOf"]]


def test_a_misspelt_folder_beside_a_right_one_is_named_once(folder):
    (folder / "shemes").mkdir()
    (folder / "helpers").mkdir()
    with pytest.warns(PluginWarning, match="left out: .*/shemes; did you mean schemes/") as caught:
        plugins.find("scheme")
    assert len(caught) == 1
    assert edgekd_command("run", "digits", "--plan").stderr.count("shemes;") == 1


def test_the_schema_leaves_broken_ones_out(folder):
    from edgekd.recipe.schema import json_schema

    (folder / "methods").mkdir()
    (folder / "methods" / "torn.py").write_text("def torn(:\n")
    with pytest.warns(PluginWarning, match=r"left out: the distillation method 'torn' is broken: .*torn\.py"):
        schema = json_schema()
    titles = [term["title"] for term in schema["$defs"]["TermSettings"]["oneOf"]]
    assert "kd" in titles and "torn" not in titles
    shown = edgekd_command("schema")
    assert shown.returncode == 0 and shown.stderr.startswith("edgekd: left out: the distillation method 'torn'")


def test_a_package_adds_plugins_by_entry_points(tmp_path, monkeypatch):
    points = "[edgekd.sources]\nshelf = shelf_package.sources\nattic = shelf_package.sources:ATTIC\n"
    code = SOURCE.format(mirror=True) + "ATTIC = Source(read=SOURCE.read, fingerprint=fingerprint, mirror=False)\n"
    _install(tmp_path, "shelf-package", points, {"shelf_package/sources.py": code})
    monkeypatch.syspath_prepend(tmp_path)
    found = {plugin.name: plugin for plugin in plugins.find("source")}
    assert found["shelf"].origin == "shelf-package 1.2"
    assert (source_named("shelf").mirror, source_named("attic").mirror) == (True, False)


def test_what_a_package_misspells_names_the_package(tmp_path, monkeypatch):
    points = "[edgekd.sources]\nlost = lost_package.nowhere\nhollow = lost_package.sources:SUORCE\n"
    _install(tmp_path, "lost-package", points, {"lost_package/sources.py": SOURCE.format(mirror=True)})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"lost_package.nowhere of lost-package 1.2(?s:.)*No module named"):
        source_named("lost")
    with pytest.raises(PluginError, match=r"sources.py of lost-package 1.2(?s:.)*no SUORCE, but SOURCE"):
        source_named("hollow")


def test_the_code_of_a_plugin_from_outside_has_a_digest(folder, tmp_path, monkeypatch):
    """Edited code must not be taken for what a stage ran before."""
    file, helper = folder / "sources" / "my_source.py", folder / "sources" / "_helper.py"
    digests = [_code("my-source")]
    for changed in (file, helper):
        with changed.open("a") as stream:
            stream.write("# changed\n")
        digests.append(_code("my-source"))
    (folder / "sources" / "neighbour.py").write_text("")
    assert len({*digests}) == 3 and _code("my-source") == digests[-1]
    assert plugins.code_key("source", "digits") == {}
    files = {"stall/sources.py": SOURCE.format(mirror=True)}
    _install(tmp_path / "site", "stall", "[edgekd.sources]\nstall = stall.sources\n", files)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert _code("stall")


def test_places_are_searched_in_order(folder, tmp_path, monkeypatch):
    """What is tried first where several fit, e.g. backends, is edgekd's own."""
    (folder / "sources" / "a_first.py").write_text(SOURCE.format(mirror=True))
    site = tmp_path / "site"
    _install(site, "between", "[edgekd.sources]\nbetween = between.sources\n", {"between/sources.py": ""})
    monkeypatch.syspath_prepend(site)
    own, installed, *mine = plugins.names("source")[-4:]
    assert (own, installed, mine) == ("unlabelled", "between", ["a-first", "my-source"])


def test_a_name_twice_names_both_places(folder, tmp_path, monkeypatch):
    other = plugin_folder(tmp_path / "other", monkeypatch)
    (other / "sources" / "digits.py").write_text(SOURCE.format(mirror=True))
    with pytest.raises(PluginError) as caught:
        source_named("my-source")
    for place in (folder, other):
        assert str(place / "sources" / "my_source.py") in str(caught.value)
    with pytest.raises(PluginError, match=r"edgekd/data/sources/digits\.py and .*other/sources/digits\.py"):
        source_named("digits")
    assert source_named("cifar10").mirror
    with pytest.raises(PluginError, match="two data source plugins have the name 'digits'"):
        plugins.load_all("source")
    shown = edgekd_command("plugins", "source")
    assert shown.stdout.count("my-source is broken") == 2 and "two data source plugins have the name" in shown.stdout


def test_the_same_folder_twice_is_one(folder, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setenv(plugins.FOLDERS, os.pathsep.join([str(folder), str(tmp_path / "link"), f"{folder}/"]))
    assert plugins.names("source").count("my-source") == 1 and not source_named("my-source").mirror


def test_the_file_alone_names_a_plugin(folder):
    """Two files may export one object: each has its own name, and edgekd's own keeps its."""
    file = folder / "variants" / "my_half.py"
    file.parent.mkdir()
    file.write_text("from edgekd.export.variants.fp16 import VARIANT\n")
    mine, own = plugins.load("variant", "my-half"), plugins.load("variant", "fp16")
    assert (mine.name, own.name, own is plugins.load("variant", "fp16")) == ("my-half", "fp16", True)
    assert (mine.title, mine.tolerance, mine.base) == (own.title, own.tolerance, own.base)


def test_what_is_sound_is_checked_in_silence(folder, recwarn):
    shown = edgekd_command("plugins", "sources", "--check")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert isinstance(plugins.load_all("source")["my-source"], Source) and not recwarn


@pytest.mark.parametrize("kind", ["command", "edit"])
def test_some_kinds_are_closed(folder, kind):
    """Commands are the program itself; an edit's name stands in checkpoints that others must be able to rebuild."""
    (folder / plural(kind)).mkdir()
    (folder / plural(kind) / "mine.py").write_text("command = EDIT = 1\n")
    assert "mine" not in plugins.names(kind)


def test_a_folder_that_is_not_a_plugin_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="EDGEKD_PLUGINS names .*nowhere"):
        plugins.names("source")
    (tmp_path / "source").mkdir()
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path))
    with pytest.raises(UsageError, match=r"has no plugins\n  found: source\n  allowed: .*sources"):
        plugins.names("source")
    assert edgekd_command("plugins").returncode == edgekd_command("--plugins", "nowhere", "plugins").returncode == 2
    assert edgekd_command("--help").returncode == 0


def test_the_option_is_over_when_the_command_is(folder, monkeypatch):
    from click.testing import CliRunner

    from edgekd.cli import group

    monkeypatch.delenv(plugins.FOLDERS)
    shown = CliRunner().invoke(group, ["--plugins", str(folder), "plugins", "source"], catch_exceptions=False)
    assert "my-source" in shown.stdout and plugins.FOLDERS not in os.environ


def test_listing_imports_no_plugin(folder):
    (folder / "sources" / "bomb.py").write_text("raise SystemExit('imported')\n")
    code = "import sys; from edgekd import plugins; found = [plugins.names(k) for k in plugins.KINDS];"
    code += "assert 'bomb' in str(found) and not [m for m in sys.modules if m.startswith('edgekd_plugins')];"
    code += "assert not {'torch', 'onnxruntime', 'edgekd.data', 'edgekd.distillation'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_edgekd_needs_no_installation(tmp_path):
    """A bare copy, with nothing but what the start imports beside it, has no metadata to read a version from."""
    import click
    import psutil

    for package in (edgekd, click, psutil):
        home = Path(package.__file__).parent
        shutil.copytree(home, tmp_path / home.name, ignore=shutil.ignore_patterns("__pycache__"))
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import edgekd; print(edgekd.__file__); "
    code += "sys.argv = ['edgekd', '--version']; from edgekd.cli import main; main()"
    shown = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    file, version = shown.stdout.splitlines()
    assert Path(file).is_relative_to(tmp_path) and version == "edgekd, version 0+unknown"


def test_a_benchmark_needs_no_installation(tmp_path, small_net):
    """With all other packages, but without edgekd's metadata, as where only PYTHONPATH names it."""
    site = Path(pytest.__file__).parents[1]
    for entry in (entry for entry in site.iterdir() if "edgekd" not in entry.name):
        (tmp_path / entry.name).symlink_to(entry)
    home = Path(edgekd.__file__).parent
    shutil.copytree(home, tmp_path / home.name, ignore=shutil.ignore_patterns("__pycache__"))
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from edgekd.bench.worker import measure; "
    code += "from edgekd.bench.process import Job; print(measure(Job.model_validate_json(sys.argv[1])).harness)"
    file = ModelFile(name="net", sha256="0" * 64, size_bytes=1)
    target = Target(path=str(small_net), name="net", variant=None, backend="onnxruntime", file=file)
    options = Options(batch_sizes=(1,), threads=1, seconds=0.01, warmup_seconds=0.0, input_shape=None)
    job = Job(target=target, options=options, batch_size=1, device="this-machine").model_dump_json()
    shown = subprocess.run([sys.executable, "-I", "-S", "-c", code, job], capture_output=True, text=True)
    assert shown.stdout == "edgekd 0+unknown\n", shown.stderr


def test_the_version_is_read_in_one_place():
    """Elsewhere, e.g. in the report, it would be an error without the metadata."""
    home = Path(edgekd.__file__).parent
    reads = re.compile(r"""version\(["']edgekd["']\)""")
    assert [file.name for file in home.rglob("*.py") if reads.search(file.read_text())] == ["version.py"]
