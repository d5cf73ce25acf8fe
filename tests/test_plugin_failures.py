"""Plugins that are broken, have wrong members, or fail while they are used: one message each, no neighbour falls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plugin_files import SOURCE, edgekd_command, plugin_folder

from edgekd import plugins
from edgekd.data.sources import source_named
from edgekd.errors import PluginError, PluginWarning
from edgekd.export import variants
from edgekd.plugin_places import plural
from edgekd.runtime import backends


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return plugin_folder(tmp_path / "mine", monkeypatch)


BROKEN = {
    "syntax": ("def f(:\n", "line 1: def f(:"),
    "unbound": ("x = 1\ny = nowhere + x\n", "in line 2: y = nowhere + x"),
    "leaves": ("import sys\nsys.exit(3)\n", "SystemExit: 3, in line 2: sys.exit(3)"),
    "no-module": ("import nowhere_at_all\n", "No module named 'nowhere_at_all'"),
    "misspelt": ("from edgekd.data.sources import Source\nSOURCES = 1\n", "no SOURCE, but SOURCES"),
    "other-type": ("SOURCE = {}\n", "SOURCE is of type dict"),
    "no-member": (SOURCE.format(mirror=True).replace("mirror=", "miror="), "unexpected keyword argument 'miror'"),
    "wrong-member": (SOURCE.format(mirror='"yes"'), "found: mirror='yes', of type str\n  allowed: True or False"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_message_that_names_it(folder, name):
    text, message = BROKEN[name]
    file = folder / "sources" / f"{name.replace('-', '_')}.py"
    file.write_text(text)
    with pytest.raises(PluginError) as caught:
        source_named(name)
    assert str(file) in caught.value.what and message in str(caught.value) and caught.value.hint


# One wrong object per kind that may come from outside, and what is said of it.
WRONG = {
    "backend": {
        "Backend(title=3, available='yes', open=4, suffixes=(), activations=len, version=len)": "title=3, of type int",
        "replace(KNOWN, available='yes')": "available='yes', of type str\n  allowed: a function",
        "replace(KNOWN, open=4)": "open=4, of type int\n  allowed: a function",
        "replace(KNOWN, suffixes='.onnx')": "suffixes='.onnx', of type str\n  allowed: a tuple of text",
        "replace(KNOWN, engines=EngineBuilder(build=len, built=3, device=len))": "engines.built=3, of type int",
        "Backend('onnxruntime')": "members are given by name: title=, suffixes=",
        "Backend(name='mine')": "leave name out: it is the file's",
        "replace(KNOWN, titel='x')": "did you mean 'title'?",
    },
    "variant": {
        "replace(KNOWN, precision='fp9')": "precision='fp9', of type str\n  allowed: 'fp32', 'fp16' or 'int8'",
        "replace(KNOWN, convert=None)": "convert=None, of type NoneType\n  allowed: a function",
        "replace(KNOWN, title=3)": "title=3, of type int\n  allowed: text",
        "replace(KNOWN, tolerance=0.1)": "tolerance=0.1, of type float\n  allowed: a Tolerance",
        "replace(KNOWN, base=3)": "base=3, of type int\n  allowed: text or None",
    },
    "scheme": {
        "replace(KNOWN, parameters=3)": "parameters=3, of type int\n  allowed: a subclass of BaseModel",
        "replace(KNOWN, parameters=dict)": "of type type\n  allowed: a subclass of BaseModel",
        "replace(KNOWN, parameters=__import__('pydantic').BaseModel)": "accept unknown keys\n  allowed: a subclass of",
        "replace(KNOWN, distill='no')": "distill='no', of type str\n  allowed: a function",
        "replace(KNOWN, needs_teacher=1)": "needs_teacher=1, of type int\n  allowed: True or False",
    },
    "models": {
        "ModelSource(names=3, build=len, published_classes=len)": "names=3, of type int\n  allowed: a function",
        "ModelSource(len, len, len)": "members are given by name: names=, build=, published_classes=",
        "ModelSource(names=len)": "missing 2 required keyword-only arguments",
    },
    "source": {"replace(KNOWN, read=1)": "read=1, of type int\n  allowed: a function"},
    "method": {"replace(KNOWN, signed='no')": "signed='no', of type str\n  allowed: True or False"},
}
KNOWN = {"backend": "onnxruntime", "variant": "fp16", "scheme": "offline", "models": "timm", "source": "digits"}


def _write_wrong(folder: Path, kind: str, text: str, name: str) -> Path:
    file = folder / plural(kind) / f"{name}.py"
    file.parent.mkdir(exist_ok=True)
    attribute, contract = plugins.KINDS[kind].attribute, plugins.KINDS[kind].contract.replace(":", " import ")
    module = f"edgekd.{plugins.KINDS[kind].package}.{KNOWN.get(kind, 'kd')}"
    extra = ", EngineBuilder" if kind == "backend" else ""
    head = f"from dataclasses import replace\nfrom {module} import {attribute} as KNOWN\nfrom {contract}{extra}\n"
    file.write_text(f"{head}{attribute} = {text}\n")
    return file


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in WRONG.items() for text in texts])
def test_a_wrong_member_is_one_message_that_names_it_and_the_file(folder, kind, text):
    file = _write_wrong(folder, kind, text, "mine")
    with pytest.raises(PluginError) as caught:
        plugins.load(kind, "mine")
    shown = str(caught.value)
    assert f"the {plugins.KINDS[kind].noun} 'mine' is broken: {file}\n" in shown and WRONG[kind][text] in shown


def test_wrong_members_end_in_no_traceback(folder):
    files = [
        _write_wrong(folder, kind, text, f"wrong{number}")
        for kind, texts in WRONG.items()
        for number, text in enumerate(texts)
    ]
    for command in (("--help",), ("plugins",), ("doctor",), ("schema",)):
        shown = edgekd_command(*command)
        assert shown.returncode in (0, 1) and "Traceback" not in shown.stderr, shown.stderr
    checked = edgekd_command("plugins", "--check", "--json")
    rows = [row for rows in json.loads(checked.stdout).values() for row in rows if row["broken"]]
    assert checked.returncode == 1 and {row["file"] for row in rows} == set(map(str, files))


def test_broken_files_take_down_neither_help_nor_neighbours(folder):
    for name, (text, _) in BROKEN.items():
        (folder / "sources" / f"{name.replace('-', '_')}.py").write_text(text)
    assert edgekd_command("--help").returncode == edgekd_command("plugins").returncode == 0
    checked = edgekd_command("plugins", "source", "--check", "--json")
    rows = {row["name"]: row for row in json.loads(checked.stdout)["source"]}
    assert checked.returncode == 1
    assert {name for name, row in rows.items() if row["broken"]} == set(BROKEN)
    for name, (_, message) in BROKEN.items():
        assert message in rows[name]["broken"] and rows[name]["file"] in rows[name]["broken"]
    shown = edgekd_command("plugins", "source", "--check").stdout
    assert "syntax is broken" in shown and f"my-source  ({folder})" in shown
    with pytest.warns(PluginWarning, match=r"left out: .*\.py"):
        assert "my-source" in plugins.load_all("source")


FAILING = """
from edgekd.distillation.method import Method


def mine(student_logits, teacher_logits):
    return student_logits.nonsense()


METHOD = Method(function=mine)
"""


def test_a_plugin_that_fails_while_it_runs_is_one_message_with_its_line(folder, tmp_path):
    file = folder / "methods" / "mine.py"
    file.parent.mkdir()
    file.write_text(FAILING)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        """
        name: tiny
        data: {source: digits, image_size: 8, limit: 96}
        teacher: {model: cifar/resnet8, train: {epochs: 1}}
        student: {model: cifar/resnet8}
        distill: {objective: [{method: mine}], epochs: 1}
        """
    )
    shown = edgekd_command("run", str(recipe), "--out", str(tmp_path / "run"), "--until", "distill")
    assert shown.returncode == 1 and "Traceback" not in shown.stderr
    assert [made.name[:5] for made in (tmp_path / "run" / "stages").iterdir()] == ["data-"]  # before any training
    assert f"the distillation method 'mine' failed: {file}\n  found: AttributeError: " in shown.stderr
    assert "in line 6: return student_logits.nonsense()" in shown.stderr


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("1.0", "does not return a scalar tensor\n  found: a float"),
        ("student_logits", r"does not return a scalar tensor\n  found: a tensor \(4, 10\)"),
        ("student_logits.detach().mean()", "has no gradient for the student"),
        ("student_logits.mean() + edgekd", "'mine' failed(?s:.)*NameError(?s:.)*in line 6"),
    ],
)
def test_what_a_loss_returns_is_tried_before_any_training(folder, returned, message):
    torch = pytest.importorskip("torch")
    from edgekd.distillation.terms import Networks, build_terms
    from edgekd.recipe.settings import TermSettings

    (folder / "methods").mkdir()
    (folder / "methods" / "mine.py").write_text(FAILING.replace("student_logits.nonsense()", returned))
    with pytest.raises(PluginError, match=message):
        build_terms([TermSettings(method="mine")], Networks(torch.nn.Identity(), None, 8, 8, 10))


def test_a_failure_of_edgekd_itself_is_not_blamed_on_a_plugin(folder):
    plugins.load("source", "my-source")
    try:
        raise ValueError("edgekd's own")
    except ValueError as error:
        assert plugins.failure(error) is None


ANSWERS = {
    "available": ("available=lambda: False", "available() returned False, of type bool\n  allowed: text or None"),
    "version": ("version=lambda: 3", "version() returned 3, of type int\n  allowed: text or None"),
    "raises": ("available=lambda: nowhere", "NameError: name 'nowhere' is not defined, in line 4"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_backend_that_answers_wrongly_is_left_out_and_takes_none_down(folder, linear_bundle, name):
    member, message = ANSWERS[name]
    file = _write_wrong(folder, "backend", f"replace(KNOWN, {member})", "mine")
    with pytest.warns(PluginWarning) as caught:
        assert "onnxruntime" in [backend.name for backend in backends.all_backends()]
    (warning,) = {str(each.message) for each in caught}
    assert warning.startswith(f"left out: the inference backend 'mine' failed: {file}\n") and message in warning
    for command in (("doctor",), ("bench", str(linear_bundle), "--seconds", "0.01")):
        shown = edgekd_command(*command)
        assert shown.returncode == 0 and "Traceback" not in shown.stderr and message in shown.stderr, shown.stderr


RETURNS_NONE = {
    "backend": ("replace(KNOWN, open=lambda path, *, threads=None: None)", "open", "a Session"),
    "source": ("replace(KNOWN, read=lambda settings: None)", "read", "a RawData"),
    "variant": ("replace(KNOWN, convert=lambda *given: None)", "convert", "an OnnxModel"),
    "scheme": ("replace(KNOWN, distill=lambda *given: None)", "distill", "a Distilled"),
    "models": ("replace(KNOWN, build=lambda *given: None)", "build", "a Module"),
}


@pytest.mark.parametrize("kind", RETURNS_NONE)
def test_what_a_function_returns_is_held_against_its_contract(folder, kind):
    text, member, allowed = RETURNS_NONE[kind]
    file = _write_wrong(folder, kind, text, "mine")
    with pytest.raises(PluginError) as caught:
        getattr(plugins.load(kind, "mine"), member)(None)
    shown = str(caught.value)
    assert f"{file}\n  found: {member}() returned None, of type NoneType\n  allowed: " in shown
    assert allowed.split()[-1] in shown


def test_an_error_of_edgekds_own_kind_at_import_names_the_plugin_too(folder):
    file = folder / "sources" / "mine.py"
    file.write_text("from edgekd.errors import UsageError\nraise UsageError('no such luck')\n")
    with pytest.raises(PluginError, match="'mine' is broken: (?s:.)*UsageError: no such luck, in line 2"):
        source_named("mine")


@pytest.mark.parametrize("base", ["mine", "int8-asym"])
def test_a_variant_is_not_converted_from_one_that_is_converted(folder, base):
    _write_wrong(folder, "variant", f"replace(KNOWN, base={base!r})", "mine")
    with pytest.raises(PluginError, match=f"'mine' is converted from '{base}', which is converted itself"):
        variants.ordered(["fp32", "mine"])


@pytest.mark.parametrize("raised", ["StopIteration()", "SystemExit(3)", "KeyError('label')"])
def test_whatever_a_sources_image_raises_is_a_message_that_names_it(folder, tmp_path, raised):
    (folder / "sources" / "mine.py").write_text(
        "import numpy as np\n"
        "from edgekd.data.sources import RawData, Source\n"
        "class Items:\n"
        "    labels = np.arange(20) % 2\n"
        "    def __len__(self): return 20\n"
        "    def name(self, index): return f'item {index}'\n"
        f"    def image(self, index): raise {raised}\n"
        "def read(settings): return RawData(classes=('a', 'b'), splits={'train': Items()})\n"
        "SOURCE = Source(read=read, fingerprint=lambda settings: {}, mirror=False)\n"
    )
    settings = ("--set", "data={source: mine, image_size: 16}", "--out", str(tmp_path / "run"))
    shown = edgekd_command("train", "digits", *settings)
    assert shown.returncode == 1 and "Traceback" not in shown.stderr
    named = "item 0: KeyError: 'label'" if raised.startswith("KeyError") else "'mine' failed: "
    assert named in shown.stderr and raised.partition("(")[0] in shown.stderr
