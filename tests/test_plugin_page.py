"""docs/plugins.md, followed step by step: its files are written, its commands run, its output compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd import plugins
from edgekd.data.sources import source_named
from edgekd.plugin_places import plural
from edgekd.recipe.settings import TermSettings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "plugins.md").read_text()
# A file's name, alone or at the end of a sentence, and the block below.
FILES = dict(re.findall(r"`([\w./-]+\.\w+)`:\n```(?:python|toml)\n(.*?)```", PAGE, re.DOTALL))

LINES = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's plugins."""
    folder = tmp_path_factory.mktemp("page")
    for name, text in FILES.items():
        if name.startswith("my-plugins/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    return folder


def test_every_block_of_code_has_its_file():
    assert len(FILES) == len(re.findall(r"```(?:python|toml)\n", PAGE)) == 7


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("my-plugins/")])
def test_what_is_quoted_stands_in_its_file(name):
    assert FILES[name] in (ROOT / name).read_text()


@pytest.mark.parametrize(
    "line", [line for text in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in text.splitlines()]
)
def test_commands_run(place, line):
    pytest.importorskip("torch")
    command, _, remark = line.partition("  # ")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(
        f"{sys.executable} -m {command}", shell=True, cwd=place, env=environment, capture_output=True, text=True
    )
    assert shown.returncode == (1 if remark == "exits with 1" else 0), shown.stderr
    if remark:
        (block,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
        assert block in shown.stdout.replace(f"{place.resolve()}/", "")


def test_the_loss_and_the_source_do_what_they_promise(place, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setenv(plugins.FOLDERS, str(place / "my-plugins"))
    loss = plugins.load("method", "huber").function
    # |3| - 1/2 where the difference is above delta, squared half below: (2.5 + 0.125) / 1 row.
    assert loss(torch.tensor([[3.0, 0.5]]), torch.zeros(1, 2)).item() == pytest.approx(2.625)
    from edgekd.distillation.objective_settings import objective_json
    from edgekd.distillation.terms import Networks, Seen, build_terms

    # A network in bf16 answers in bf16, a teacher in fp32; the loss is given single precision.
    (term,) = build_terms([TermSettings(method="huber")], Networks(torch.nn.Identity(), None, 4, 1, 10)).each
    half = Seen(torch.tensor([[3.0, 0.5]], dtype=torch.bfloat16), torch.zeros(1, 2))
    assert term(half).item() == pytest.approx(2.625) and term(half).dtype == torch.float32

    own, other = objective_json([TermSettings(method="huber"), TermSettings(method="kd")])
    assert len(own["code"]) == 64 and "code" not in other
    (place / "data").mkdir()
    for shade, name in ((10, "dark"), (250, "light")):
        np.save(place / "data" / f"{name}.npy", np.full((3, 4, 4), shade, np.uint8))
    np.save(place / "data" / "other.array.npy", np.zeros((1, 4, 4), np.uint8))
    section = {"source": "array-per-class", "root": place / "data", "files": "[dl]*.npy"}
    settings = source_named("array-per-class").settings.model_validate(section)
    raw = source_named("array-per-class").read(settings)
    assert raw.classes == ("dark", "light") and raw.splits["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert raw.splits["train"].image(3).getpixel((0, 0)) == 250
    assert set(source_named("array-per-class").fingerprint(settings)) == {"dark.npy", "light.npy"}


def test_the_scheme_and_the_source_of_networks_make_a_student(place, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv(plugins.FOLDERS, str(place / "my-plugins"))
    from edgekd.models.checkpoint import Checkpoint
    from edgekd.pipeline import run_until
    from edgekd.recipe.load import from_mapping

    recipe = from_mapping(
        {
            "name": "page",
            "data": {"source": "digits", "image_size": 16, "limit": 64},
            "teacher": {"model": "small/plain16", "train": {"epochs": 1}},
            "student": {"model": "small/plain8"},
            "distill": {"scheme": {"name": "labels-first", "label_epochs": 3}, "epochs": 1},
        }
    )
    student = run_until("distill", recipe, tmp_path)
    inputs = student.manifest.stage.inputs
    assert set(inputs) == {"data", "teacher", "student"}
    (started,) = (tmp_path / "stages").glob("labels-*")
    assert inputs["student"] == Checkpoint.load(started).digest
    assert len(Checkpoint.load(started).metrics["history"]) == 3


@pytest.mark.parametrize("kind", [kind for kind, wanted in plugins.KINDS.items() if wanted.outside])
def test_every_member_is_explained(kind):
    """The tables of members have what the contracts have."""
    pytest.importorskip("torch")
    from dataclasses import fields

    members = {field.name for field in fields(plugins.contract(kind)) if field.init}
    _, _, table = PAGE.partition(f"| member of `{plugins.KINDS[kind].attribute}` |")
    rows = [line.split("|")[1] for line in table.split("\n\n")[0].splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == members


def test_every_kind_from_outside_is_named():
    for kind in (kind for kind, wanted in plugins.KINDS.items() if wanted.outside):
        assert f"`edgekd.{plural(kind)}`" in PAGE and f"`{plural(kind)}/`" in PAGE
