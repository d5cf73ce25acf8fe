from __future__ import annotations

from types import SimpleNamespace

from edgekd.recipe.load import from_mapping
from edgekd.recipe.settings import BenchSettings
from edgekd.runs import Run, Stage, settings_json
from edgekd.store.artifacts import Artifact, Details
from edgekd.store.store import Store

RECIPE = {
    "name": "x",
    "data": {"source": "digits"},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
    "student": {"model": "cifar/resnet8"},
}


class Number(Artifact[Details]):
    kind = "number"


STAGE = Stage("count", "Counting", version=1, facts=lambda made: [made.kind])


def run(tmp_path, **given) -> Run:
    return Run(from_mapping(RECIPE).settings, Store(tmp_path), **given)


def made(run: Run, **given) -> Number:
    return run.stage(
        STAGE, Number, settings={}, inputs={}, make=lambda out: Number.seal(out, details=Details()), **given
    )


def test_a_stage_lends_its_name_title_and_facts_and_may_be_run_under_another(tmp_path):
    current = run(tmp_path)
    made(current)
    made(current, name="count-again", title="Once more")
    assert [(done.name, done.title, done.facts) for done in current.store.log] == [
        ("count", "Counting", ("number",)),
        ("count-again", "Once more", ("number",)),
    ]


def test_what_is_finished_is_announced_with_its_artifact(tmp_path):
    reached = []
    current = run(tmp_path, reached=lambda stage, artifact: reached.append((stage.name, artifact)))
    one = made(current)
    several = (one, one)
    assert current.finish(STAGE, one) is one and current.finish(STAGE, several) is several
    assert current.finish(STAGE, several, one) is several
    assert reached == [("count", one), ("count", None), ("count", one)]


def test_without_a_console_there_is_not_a_progress_and_warnings_go_nowhere(tmp_path):
    current = run(tmp_path)
    assert current.progress("count") is None
    current.warn(["unheard"])


def test_a_console_is_reported_by_the_stages_name(tmp_path):
    reported = []
    console = SimpleNamespace(
        progress=lambda *given: reported.append(given), warn=lambda message: reported.append(message)
    )
    current = run(tmp_path, console=console)
    current.progress("count")(1, 2, "half")
    current.warn(["one", "two"])
    assert reported == [("count", 1, 2, "half"), "one", "two"]


def test_settings_are_plain_json_without_what_is_left_out():
    found = settings_json(BenchSettings(batch_sizes=(1, 2)), exclude={"devices"})
    assert found["batch_sizes"] == [1, 2] and "devices" not in found
