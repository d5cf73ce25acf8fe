"""The classical scheme: one teacher, one student."""

from __future__ import annotations

from dataclasses import replace

from edgekd import schemes
from edgekd.stages import data as data_stage
from edgekd.stages import train as train_stage
from edgekd.store.plan import Plan


def test_a_student_learns_from_the_teacher_only(stages, distilled, score):
    chain = stages("distill.objective=[{method: kd}]")
    made = distilled(chain)
    assert score(made.student, data_stage.data(chain)) > 0.8
    assert made.student.details.training.teacher == train_stage.teacher(chain, data_stage.data(chain)).digest
    assert not made.others


def test_cross_view_shows_the_teacher_other_pixels_and_still_teaches(stages, distilled, score):
    chain = stages("distill.scheme={name: offline, cross_view: true}")
    made = distilled(chain)
    assert score(made.student, data_stage.data(chain)) > 0.8
    assert made.student.digest != distilled(stages()).student.digest


def test_a_plan_writes_nothing(stages, tmp_path):
    chain = stages()
    plan = replace(chain, store=Plan(tmp_path / "plan"))
    data = data_stage.data(plan)
    schemes.distill(plan, train_stage.teacher(plan, data), data)
    assert [stage.state for stage in plan.store.stages] == ["run", "planned", "planned"]
    assert not (tmp_path / "plan").exists()


def test_stored_outputs_train_the_same_student_as_the_live_teacher(stages, distilled, score):
    live, stored = stages(), stages("distill.teacher_outputs={store: on, views: 2}")
    data = data_stage.data(live)
    scores = [score(distilled(chain).student, data) for chain in (live, stored)]
    assert abs(scores[0] - scores[1]) < 0.05
    assert [done.name for done in stored.store.log][1:] == ["teacher", "teacher-outputs", "distill"]


def test_auto_reports_why_the_teacher_stays_live(stages, distilled):
    chain = stages(
        "distill.teacher_outputs=auto", "distill.epochs=1", "distill.objective=[{method: kd}, {method: attention}]"
    )
    found = distilled(chain).student.metrics["teacher_outputs"]
    assert found["digest"] is None and found["decision"]["why"] == "attention compares the teacher's layers"
