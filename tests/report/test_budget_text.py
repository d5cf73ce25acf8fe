from __future__ import annotations

from typing import Any

from edgekd.recipe.load import from_mapping
from edgekd.report import budget_text
from edgekd.report.verdict import Bound, Nearest, Verdict

RECIPE: dict[str, Any] = {
    "name": "x",
    "data": {"source": "digits", "image_size": 16},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
    "student": {"model": "cifar/resnet8"},
}
LATENCY = Bound(name="latency_ms", limit=5, value=4.21, met=True)
DROP = Bound(
    name="accuracy_drop",
    limit=0.01,
    value=0.0278,
    interval=(-0.002, 0.05),
    against="teacher-fp32",
    met=False,
    settled=False,
)
SIZE = Bound(name="size_mb", limit=4, value=6.2, met=False, nearest=Nearest(model="student-fp16", value=4.4))


def _verdict(*bounds: Bound, **changes: Any) -> Verdict:
    met = all(bound.met for bound in bounds)
    return Verdict(**{"met": met, "model": "student-fp32", "engine": "onnxruntime 1.31.1", "bounds": bounds, **changes})


def _plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def test_a_plan_states_each_bound_with_its_unit() -> None:
    budget = {"latency_ms": 5, "accuracy_drop": 0.01, "size_mb": 0.5}
    lines = budget_text.planned(from_mapping({**RECIPE, "budget": budget}).settings)
    assert [_plain(line) for line in lines] == [
        "variant: the bundle's default for the measured engine",
        "latency_ms: median latency of one image, at most 5 ms",
        "accuracy_drop: loss of test accuracy against the teacher, at most 1 point",
        "size_mb: size of the file, at most 0.5 MB",
    ]
    assert budget_text.planned(from_mapping(RECIPE).settings) == ()
    named = budget_text.planned(from_mapping({**RECIPE, "budget": {"size_mb": 1, "variant": "fp16"}}).settings)
    assert named[0] == "variant: fp16"


def test_a_row_has_the_value_with_its_interval_and_whether_it_settles_the_bound() -> None:
    row = budget_text.rows(_verdict(DROP), measure="mAP", names={"teacher-fp32": "Teacher, fp32"})[0]
    assert _plain(row.value) == "2.78 points" and _plain(row.interval) == "−0.200 to 5.00 points"
    assert row.what == "loss of test mAP against Teacher, fp32" and row.result == "missed, not settled"
    unmeasured = LATENCY.model_copy(update={"value": None, "met": False})
    assert budget_text.rows(_verdict(unmeasured), measure="accuracy")[0].value == "not measured"


def test_the_headline_names_the_file_and_what_is_missed() -> None:
    assert budget_text.headline(_verdict(LATENCY)) == "Budget met by student-fp32 in onnxruntime 1.31.1"
    missed = _verdict(LATENCY, DROP, SIZE, engine=None)
    assert budget_text.headline(missed) == "Budget missed by student-fp32: accuracy_drop, size_mb"
    useless = _verdict(LATENCY, met=False, problems=("one class, boot, for every image",))
    assert budget_text.headline(useless).endswith(": not usable")
    assert "student-fp32 is not usable: one class, boot, for every image." in budget_text.notes(useless)


def test_a_variant_that_was_left_out_misses_the_budget_and_is_named() -> None:
    lost = _verdict(SIZE.model_copy(update={"value": None, "nearest": None}), model=None, engine=None)
    lost = lost.model_copy(update={"problems": ("fp16 was left out of the bundle",)})
    assert budget_text.headline(lost) == "Budget missed: size_mb"
    assert budget_text.message(lost).splitlines() == [
        *("budget missed", "  size_mb: was not measured", "  fp16 was left out of the bundle.")
    ]


def test_the_message_has_by_how_much_each_bound_is_missed_and_what_is_nearest() -> None:
    assert _plain(budget_text.message(_verdict(LATENCY, DROP, SIZE))).splitlines() == [
        "budget missed by student-fp32",
        "  accuracy_drop: 2.78 points (95 % interval −0.200 to 5.00 points), 1.78 points above 1 point",
        "  size_mb: 6.20 MB, 2.20 MB above 4 MB",
        "  The interval does not settle accuracy_drop: the value decides. More test images narrow it.",
        "  No other file of the bundle comes nearer to accuracy_drop.",
        "  Nearest to size_mb in the bundle: student-fp16 with 4.40 MB.",
    ]
    instead = _plain(budget_text.message(_verdict(SIZE, within="student-fp16")))
    assert instead.endswith("student-fp16, in the same bundle, keeps to every bound; budget.variant judges it.")
    assert "Nearest" not in instead
    nearer = SIZE.model_copy(update={"nearest": Nearest(model="student-fp16", value=3.9)})
    text = _plain(budget_text.message(_verdict(nearer)))
    assert text.endswith("student-fp16, in the same bundle, keeps to size_mb with 3.90 MB.")
    agreement = Bound(name="agreement", limit=0.99, value=0.97, met=False)
    assert "97.0 %, 2.00 % below 99 %" in _plain(budget_text.message(_verdict(agreement)))


def test_a_disturbed_latency_matters_where_it_is_too_high() -> None:
    assert budget_text.notes(_verdict(LATENCY, disturbed=True)) == ()
    slow = LATENCY.model_copy(update={"value": 5.5, "met": False})
    assert any("disturbed machine" in note for note in budget_text.notes(_verdict(slow, disturbed=True)))
