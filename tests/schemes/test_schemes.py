"""What all schemes get from their package."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd import pipeline, plugins
from edgekd.errors import UsageError
from edgekd.recipe import load as recipes
from edgekd.recipe.settings import PruneSettings, SchemeSettings
from edgekd.schemes import scheme_named

SCHEME = """
from dataclasses import replace

from edgekd.schemes.offline import SCHEME as OFFLINE

SCHEME = replace(OFFLINE)
"""


def _waiting(recipe: recipes.Recipe, folder: Path) -> list[str]:
    """The stages that would run, by name."""
    return [stage.name for stage in pipeline.plan(recipe, folder) if stage.state != "reused"]


def test_edited_code_of_a_scheme_from_outside_distills_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "plugins" / "schemes" / "mine.py"
    file.parent.mkdir(parents=True)
    file.write_text(SCHEME)
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path / "plugins"))
    recipe = recipes.from_mapping(
        {
            "name": "tiny",
            "data": {"source": "digits", "image_size": 8, "limit": 64},
            "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
            "student": {"model": "cifar/resnet8"},
            "distill": {"scheme": "mine", "epochs": 1, "baseline": False},
            "export": {"variants": ["fp32"]},
        }
    )
    pipeline.run_until("distill", recipe, tmp_path / "run")
    assert not {"teacher", "distill"} & {*_waiting(recipe, tmp_path / "run")}
    file.write_text(f"{SCHEME}# changed\n")
    waiting = _waiting(recipe, tmp_path / "run")
    assert "distill" in waiting and "teacher" not in waiting


@pytest.mark.parametrize("scheme", plugins.names("scheme"))
def test_a_scheme_whose_student_sees_no_labels_cannot_draw_by_class(scheme: str) -> None:
    settings = recipes.from_mapping(
        {"name": "x", "data": {"source": "digits", "balance": "full"}, "student": {"model": "cifar/resnet8"},
         "teacher": {"model": "cifar/resnet8", "train": {}}, "distill": {"scheme": "offline"}}
    ).settings  # fmt: skip
    blind = not scheme_named(scheme).sees_labels
    assert blind == (scheme in ("semi-supervised", "data-free", "federated"))
    if blind:
        distill = settings.distill.model_copy(update={"scheme": SchemeSettings(name=scheme)})
        teacher = settings.teacher if scheme_named(scheme).needs_teacher else None
        with pytest.raises(UsageError, match=r"cannot be drawn by class\n  found: data.balance: full"):
            scheme_named(scheme).check_recipe(settings.model_copy(update={"distill": distill, "teacher": teacher}))
        drawn = {"data": settings.data.model_copy(update={"balance": "none"}), "distill": distill, "teacher": teacher}
        pruned = settings.model_copy(update={**drawn, "prune": PruneSettings(importance="taylor")})
        with pytest.raises(UsageError, match=r"taylor needs labels of all training images, which"):
            scheme_named(scheme).check_recipe(pruned)
