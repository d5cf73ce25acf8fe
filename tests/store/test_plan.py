from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import PluginError
from edgekd.store.artifacts import Artifact, Details
from edgekd.store.plan import Outline, Plan, is_described, is_pending
from edgekd.store.store import StageLabel, Store

TRAIN, DISTILL, EXPORT = (StageLabel(name, 1) for name in ("train", "distill", "export"))


class Note(Artifact[Details]):
    kind = "note"


def make(out: Path) -> Note:
    (out / "note.txt").write_text("w")
    return Note.seal(out, details=Details())


def never(out: Path) -> Note:
    raise AssertionError("a plan ran a stage")


def test_a_plan_runs_nothing_and_states_what_waits(tmp_path: Path) -> None:
    done = Store(tmp_path).stage(Note, TRAIN, settings={}, inputs={}, make=make)
    plan = Plan(tmp_path)
    reused = plan.stage(Note, TRAIN, settings={}, inputs={}, make=never)
    assert reused.digest == done.digest and not is_pending(reused)
    pending = plan.stage(Note, DISTILL, settings={}, inputs={"t": reused}, make=never)
    assert is_pending(pending)
    plan.stage(Note, EXPORT, settings={}, inputs={"student": pending}, make=never)
    assert [(s.name, s.state) for s in plan.stages] == [("train", "reused"), ("distill", "run"), ("export", "planned")]
    assert plan.stages[-1].why == "after distill"
    assert not (tmp_path / "partial" / "distill").exists()


def test_a_plan_tells_what_an_interrupted_run_resumes(tmp_path: Path) -> None:
    def interrupted(out: Path) -> Note:
        raise KeyboardInterrupt

    try:
        Store(tmp_path).stage(Note, TRAIN, settings={}, inputs={}, make=interrupted)
    except KeyboardInterrupt:
        pass
    plan = Plan(tmp_path)
    plan.stage(Note, TRAIN, settings={}, inputs={}, make=never)
    plan.stage(Note, DISTILL, settings={}, inputs={}, make=never)
    assert [stage.why for stage in plan.stages] == ["resumes an interrupted run", "not made yet"]


def test_a_plan_tells_what_has_changed_since_the_last_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    teacher = store.stage(Note, TRAIN, settings={"seed": 0}, inputs={}, make=make)
    other = store.stage(Note, StageLabel("train-longer", 1), settings={"seed": 0}, inputs={}, make=make)
    before = {"train": {"epochs": 3, "seed": 0}, "old": 1}
    store.stage(Note, DISTILL, settings=before, inputs={"teacher": teacher}, make=make)
    plan = Plan(tmp_path)

    def why(label: StageLabel, settings: dict, **inputs: Note) -> str:
        plan.stage(Note, label, settings=settings, inputs=inputs, make=never)
        return plan.stages[-1].why

    assert why(TRAIN, {"seed": 1}) == "changed: seed"
    assert why(StageLabel("train-longer", 2), {"seed": 0}) == "changed: edgekd"
    after = {"train": {"epochs": 5, "seed": 0}, "new": None}
    assert why(DISTILL, after, teacher=teacher) == "changed: train.epochs, old, new"
    assert why(DISTILL, before, assistant=other) == "changed: teacher, assistant"
    assert why(DISTILL, {str(n): n for n in range(4)}, teacher=teacher) == (
        "changed: train.epochs, train.seed, old, 0 and 3 more"
    )
    for manifest in tmp_path.glob("stages/distill-*/manifest.json"):
        manifest.write_text("{")
    assert why(DISTILL, after, teacher=teacher) == "not made yet"


@pytest.mark.parametrize("member", ["metrics", "path", "digest"])
def test_what_is_not_made_yet_cannot_be_looked_at(tmp_path: Path, member: str) -> None:
    pending = Plan(tmp_path).stage(Note, TRAIN, settings={}, inputs={}, make=never)
    assert "train" in repr(pending)
    with pytest.raises(
        PluginError, match=r"of the stage train is looked at before it is made(?s:.)*next: look at it in"
    ):
        getattr(pending, member)


def test_an_outline_reads_nothing(tmp_path: Path) -> None:
    """Not even the digest of an input: a chain can be listed before anything of it is there."""
    first = Outline().stage(Note, TRAIN, settings={}, inputs={}, make=never)
    assert is_pending(Outline().stage(Note, DISTILL, settings={}, inputs={"t": first}, make=never))


def test_a_tuple_is_the_list_that_it_was_stored_as(tmp_path: Path) -> None:
    Store(tmp_path).stage(Note, TRAIN, settings={"rows": [("a", 1)], "epochs": 1}, inputs={}, make=make)
    plan = Plan(tmp_path)
    plan.stage(Note, TRAIN, settings={"rows": [("a", 1)], "epochs": 2}, inputs={}, make=never)
    assert plan.stages[0].why == "changed: epochs"


def test_what_is_known_beforehand_can_be_looked_at_and_nothing_else(tmp_path: Path) -> None:
    plan = Plan(tmp_path)
    pending = plan.stage(Note, TRAIN, settings={}, inputs={}, make=never)
    assert not is_described(pending)
    plan.expect(pending, note="3 words", metrics={"words": 3}, details=Details())
    assert plan.stages[-1].why == "not made yet: 3 words"
    assert is_pending(pending) and is_described(pending)
    assert (pending.details, pending.metrics) == (Details(), {"words": 3})
    for member in ("path", "digest"):
        with pytest.raises(PluginError, match="before it is made"):
            getattr(pending, member)
    done = Store(tmp_path).stage(Note, DISTILL, settings={}, inputs={}, make=make)
    plan.expect(done, note="ignored", metrics={})
    assert plan.stages[-1].why == "not made yet: 3 words" and is_described(done)
