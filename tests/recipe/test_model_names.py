from __future__ import annotations

import pytest

from edgekd.errors import UnknownNameError, UsageError
from edgekd.recipe.model_names import check_name


def test_known_names_and_files_that_are_there_pass(tmp_path):
    (tmp_path / "nets.py").write_text("raise SystemExit('run')")
    for model in ("cifar/resnet20", "torchvision/resnet18", f"{tmp_path}/nets.py:build"):
        check_name(model)


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ("cifar/resnet21", UnknownNameError, "unknown model of cifar 'resnet21'(?s:.)*did you mean 'resnet"),
        ("cifer/resnet20", UnknownNameError, "did you mean 'cifar'"),
        ("resnet20", UnknownNameError, "unknown model source 'resnet20'"),
        ("gone.py:build", UsageError, "gone.py"),
        ("gone.py", UsageError, "does not name a function"),
    ],
)
def test_others_are_refused(model, kind, message):
    with pytest.raises(kind, match=message):
        check_name(model)
