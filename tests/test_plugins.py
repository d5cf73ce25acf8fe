from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import edgekd
from edgekd import plugins
from edgekd.errors import UnknownNameError

# Some of each kind that must be there. A new kind needs a line here: without plugins it would be tested by nothing.
EXPECTED = {
    "backend": {"onnxruntime", "tensorrt"},
    "command": {"bench", "distill", "run"},
    "source": {"cifar10", "digits", "image-folder"},
    "edit": {"prune", "quantize", "reuse_classifier"},
    "method": {"kd", "cross_entropy", "crd", "fitnets"},
    "scheme": {"offline", "online"},
    "models": {"cifar", "timm", "torchvision"},
    "variant": {"fp32", "fp16", "int8", "int8-x64"},
}


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_kind_has_its_plugins_and_each_loads(kind):
    found = {name: plugins.load(kind, name) for name in plugins.names(kind)}
    assert found.keys() >= EXPECTED[kind]
    wanted = plugins.contract(kind) if plugins.KINDS[kind].contract else ModuleType
    assert all(isinstance(plugin, wanted) for plugin in found.values())


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown distillation method 'kdd'(?s:.)*did you mean 'kd'"):
        plugins.load("method", "kdd")


def test_a_file_dropped_into_the_folder_is_a_plugin_on_the_command_line():
    place = Path(edgekd.__file__).parent / "distillation" / "methods" / "dropped_in.py"
    text = "from edgekd.distillation.method import Method\n"
    text += "def dropped_in(student_logits, teacher_logits, targets=None, *, k: int = 1): return 0\n"
    place.write_text(text + "METHOD = Method(function=dropped_in)\n")
    try:
        shown = subprocess.run(
            [sys.executable, "-m", "edgekd", "plugins", "method"], capture_output=True, text=True, check=True
        )
        assert "dropped_in" in shown.stdout
    finally:
        place.unlink()


def test_listing_imports_no_plugin():
    code = "import sys; from edgekd import plugins; [plugins.names(k) for k in plugins.KINDS];"
    code += "assert not {'torch', 'onnxruntime', 'edgekd.data', 'edgekd.distillation'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
