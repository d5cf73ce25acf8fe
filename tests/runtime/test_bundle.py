"""What a bundle says about engines; loading and refusing bundles: test_model.py."""

from __future__ import annotations

import platform

import pytest

from edgekd import runtime
from edgekd.errors import BundleError, UnknownNameError
from edgekd.runtime.bundle import read

ALL = ("int8", "fp16", "fp32", "int8-x64")


def test_the_most_specific_word_about_an_engine_counts(many_bundle):
    engines = {"onnxruntime": ["fp16", "fp32"], "onnxruntime-x86_64": ["int8-x64"], "openvino": ["int8"]}
    manifest = read(many_bundle(*ALL, engines=engines))
    assert manifest.preferred("onnxruntime", "x86_64") == ("int8-x64",)
    assert manifest.preferred("onnxruntime", "aarch64") == ("fp16", "fp32")
    assert manifest.preferred("openvino") == ("int8",)
    assert manifest.preferred("tensorrt", "aarch64") == ("int8", "fp16", "fp32")


def test_without_a_word_the_backend_decides(many_bundle):
    manifest = read(many_bundle("int8", "fp32", "int8-x64"))
    assert manifest.engines == {}
    int8 = "int8-x64" if platform.machine() == "x86_64" else "int8"
    assert manifest.preferred("onnxruntime") == ("fp32", int8)
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        manifest.preferred("onnxruntim")


def test_load_takes_the_first_and_any_by_name(many_bundle):
    bundle = many_bundle(*ALL, engines={"onnxruntime": ["fp16", "fp32"]})
    assert runtime.load(bundle).variant == "fp16"
    assert runtime.load(bundle, variant="int8").variant == "int8"


@pytest.mark.parametrize(
    ("engines", "message"),
    [({"tensorrt": ["int4"]}, "'int4', which is no variant"), ({"tensorrt": "fp32"}, "is no list"), ([], "no attrib")],
)
def test_words_about_engines_that_make_no_sense(many_bundle, engines, message):
    with pytest.raises(BundleError, match=f"cannot be understood(?s:.)*{message}"):
        read(many_bundle("fp32", engines=engines))
