"""What a bundle says about engines; loading and refusing bundles: test_model.py."""

from __future__ import annotations

import json

import pytest
from samples import write_bundle_json

from edgekd import runtime
from edgekd.errors import BundleError, UnknownNameError
from edgekd.runtime.bundle import EngineKey, MeasuredOn, read

ALL = ("int8", "fp16", "fp32", "int8-asym")


def test_the_most_specific_word_about_an_engine_counts(many_bundle):
    engines = {"onnxruntime": ["fp16", "fp32"], "onnxruntime-x86_64": ["int8-asym"], "openvino": ["int8"]}
    manifest = read(many_bundle(*ALL, engines=engines))
    assert manifest.preferred("onnxruntime", "x86_64") == ("int8-asym",)
    assert manifest.preferred("onnxruntime", "aarch64") == ("fp16", "fp32")
    assert manifest.preferred("openvino") == ("int8",)
    assert manifest.preferred("tensorrt", "aarch64") == ("int8", "fp16", "fp32")


def test_without_a_word_the_backend_decides(many_bundle):
    manifest = read(many_bundle("int8", "fp32", "int8-asym"))
    assert manifest.engines == {}
    assert manifest.preferred("onnxruntime") == manifest.preferred("onnxruntime", "aarch64") == ("fp32", "int8-asym")
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        manifest.preferred("onnxruntim")


@pytest.mark.parametrize("key", [EngineKey("onnxruntime"), EngineKey("onnxruntime", "x86_64"), EngineKey.here("one")])
def test_an_engines_key_survives_json(key):
    assert EngineKey.parse(str(key)) == key


def test_load_takes_the_first_and_any_by_name(many_bundle):
    bundle = many_bundle(*ALL, engines={"onnxruntime": ["fp16", "fp32"]})
    assert runtime.load(bundle).variant == "fp16"
    assert runtime.load(bundle, variant="int8").variant == "int8"


def test_an_order_that_was_measured_has_its_machine_and_need_not_be_followed(many_bundle):
    key, machine = EngineKey("onnxruntime", "x86_64"), {"cpu": "Intel Xeon", "instruction_sets": ["avx2"], "rounds": 15}
    engines = {"onnxruntime": ["fp32", "int8-asym"], str(key): ["int8-asym", "fp32"]}
    folder = many_bundle(*ALL, engines=engines, measured={str(key): machine})
    manifest = read(folder)
    assert manifest.measured == {key: MeasuredOn("Intel Xeon", ("avx2",))}
    assert manifest.preferred("onnxruntime", "x86_64") == ("int8-asym", "fp32")
    assert manifest.preferred("onnxruntime", "x86_64", measured=False) == ("fp32", "int8-asym")
    raw = json.loads((folder / "bundle.json").read_text())
    raw["measured"][str(key)]["instruction_sets"] = None
    write_bundle_json(folder, raw)
    unknown = read(folder)
    assert unknown.measured[key].instruction_sets is None


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ([], r"measured.onnxruntime-x86_64 is \[\], not an object"),
        ({"cpu": "x"}, "measured.onnxruntime-x86_64.instruction_sets is missing"),
        ({"cpu": 3, "instruction_sets": None}, "cpu is 3, not a text"),
        ({"cpu": "x", "instruction_sets": "avx2"}, "instruction_sets is 'avx2', not a list"),
    ],
)
def test_a_machine_that_makes_no_sense(many_bundle, machine, message):
    with pytest.raises(BundleError, match=f"is not valid(?s:.)*{message}"):
        read(many_bundle("fp32", measured={"onnxruntime-x86_64": machine}))


@pytest.mark.parametrize(
    ("engines", "message"),
    [
        ({"tensorrt": ["int4"]}, "'int4', which is not a variant"),
        ({"tensorrt": "fp32"}, "engines.tensorrt is 'fp32', not a list"),
        ([], r"engines is \[\], not an object"),
    ],
)
def test_words_about_engines_that_make_no_sense(many_bundle, engines, message):
    with pytest.raises(BundleError, match=f"is not valid(?s:.)*{message}"):
        read(many_bundle("fp32", engines=engines))


CHANGES = {
    "classes exchanged": lambda m: m["classes"].reverse(),
    "another mean": lambda m: m["preprocessing"].update(mean=[0.5, 0.5, 0.5]),
    "a better accuracy": lambda m: m["variants"]["fp32"]["metrics"].update(accuracy=0.5),
    "another order": lambda m: m.update(engines={"onnxruntime": ["fp32"]}),
    "no checksum": lambda m: m.pop("checksum"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_manifest_is_refused(linear_bundle, change):
    manifest = json.loads((linear_bundle / "bundle.json").read_text())
    change(manifest)
    (linear_bundle / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"bundle\.json was changed after the bundle was made(?s:.)*next: copy"):
        read(linear_bundle)


@pytest.mark.parametrize("name", ["model.int8.onnx", "vectors/more.npy", "vectors/deep/more.npy"])
def test_a_graph_or_a_vector_too_many_is_refused_by_name(linear_bundle, name):
    (linear_bundle / name).parent.mkdir(exist_ok=True)
    (linear_bundle / name).touch()
    with pytest.raises(BundleError, match=rf"does not list(?s:.)*{name}(?s:.)*move them elsewhere"):
        read(linear_bundle)


@pytest.mark.parametrize("name", ["model.fp32.engine", "NOTE.txt", ".DS_Store", "mine/model.fp32.onnx"])
def test_what_a_user_keeps_beside_is_let_alone(linear_bundle, name):
    (linear_bundle / name).parent.mkdir(exist_ok=True)
    (linear_bundle / name).touch()
    assert read(linear_bundle).name == "channels"
