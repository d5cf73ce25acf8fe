"""A bundle's default is believed only where it gives the expected outputs, with real graphs of which one is wrong."""

from __future__ import annotations

import json
import platform
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from samples import seal_bundle, write_linear_onnx

from edgekd.errors import BackendError, BundleError, BundleWarning
from edgekd.runtime import Model, load, processor
from edgekd.runtime.bundle import EngineKey

INT8 = "int8-asym"
HERE = str(EngineKey.here("onnxruntime"))
ORDER = {HERE: [INT8, "fp32"], "onnxruntime": ["fp32", INT8]}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgekd" / "verified"


@pytest.fixture
def verified(monkeypatch) -> list[str]:
    """The variants that were run on the test vectors, in order."""
    found, deviation = [], Model.deviation

    def counted(self: Model) -> float:
        found.append(self.variant)
        return deviation(self)

    monkeypatch.setattr(Model, "deviation", counted)
    return found


@pytest.fixture
def broken(many_bundle) -> Callable[..., Path]:
    """A bundle that prefers int8-asym, in which the graphs of some variants compute something else; all digests fit."""

    def build(*wrong: str, content: bytes | None = None, **changes: object) -> Path:
        folder = many_bundle("fp32", INT8, engines=ORDER, **changes)
        for name in wrong:
            file = folder / f"model.{name}.onnx"
            write_linear_onnx(file, np.repeat(np.eye(3), 16, axis=0) / 12, side=4)  # a third more
            if content is not None:
                file.write_bytes(content)
        seal_bundle(folder, json.loads((folder / "bundle.json").read_text()))
        return folder

    return build


def test_the_default_is_verified_once_on_this_machine(broken, verified):
    bundle = broken()
    assert [load(bundle).variant for _ in range(3)] == [INT8] * 3
    assert verified == [INT8]
    assert load(bundle, variant="fp32").variant == "fp32"
    assert verified == [INT8, "fp32"]


def test_another_processor_bundle_or_version_is_verified_again(broken, verified, monkeypatch):
    bundle = broken()
    load(bundle)
    monkeypatch.setattr(processor, "instruction_sets", lambda *root: ("avx2",))
    load(bundle)
    monkeypatch.setattr(processor, "name", lambda *root: "another CPU")
    load(bundle)
    load(bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    seal_bundle(bundle, {**manifest, "name": "renamed"})
    load(bundle)
    assert verified == [INT8] * 4


def test_a_default_that_computes_something_else_is_replaced_with_one_warning(broken, verified):
    bundle = broken(INT8)
    for _ in range(2):
        with pytest.warns(BundleWarning) as warned:
            model = load(bundle)
        assert model.variant == "fp32" and model.verify().difference < 1e-5
        (warning,) = warned
        text = str(warning.message)
        assert text.startswith(f"{bundle}: {INT8} is not used on this machine: the outputs of onnxruntime ")
        assert "difference 3.33e-01 of the largest output" in text and "allowed: at most 1e-03" in text
        assert processor.name() in text and text.endswith("fp32 is used instead.")
        assert Path(warning.filename) == Path(__file__)
    # The second time neither was run: both results were remembered. The last one is verify()'s.
    assert verified == [INT8, "fp32", "fp32", "fp32"]


def test_a_default_that_the_engine_refuses_is_replaced_and_tried_again(broken, verified):
    bundle = broken(INT8, content=b"no graph")
    for _ in range(2):
        with pytest.warns(BundleWarning, match=rf"{INT8} is not used(?s:.)*cannot load(?s:.)*fp32 is used instead"):
            assert load(bundle).variant == "fp32"
    assert verified == ["fp32"]


def test_a_variant_that_was_asked_for_is_not_replaced(broken):
    bundle = broken(INT8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):  # also where the result was remembered
            with pytest.raises(BundleError, match="differ from the bundle's test vectors(?s:.)*next: load another"):
                load(bundle, variant=INT8)
        assert load(bundle, variant="fp32").variant == "fp32"


def test_where_no_variant_passes_all_are_named(broken):
    with pytest.raises(BundleError, match=rf"no variant of (?s:.)*{INT8}: the outputs(?s:.)*; fp32: the outputs"):
        load(broken(INT8, "fp32"))


def test_a_single_variant_that_the_engine_refuses_is_the_engines_error(linear_bundle):
    (linear_bundle / "model.fp32.onnx").write_bytes(b"no graph")
    seal_bundle(linear_bundle, json.loads((linear_bundle / "bundle.json").read_text()))
    with pytest.raises(BackendError, match="cannot load"):
        load(linear_bundle)


def test_outputs_that_are_no_numbers_are_never_right(linear_bundle):
    write_linear_onnx(linear_bundle / "model.fp32.onnx", np.full((48, 3), np.nan), side=4)
    seal_bundle(linear_bundle, json.loads((linear_bundle / "bundle.json").read_text()))
    for _ in range(2):
        with pytest.raises(BundleError, match="NaN, or another shape"):
            load(linear_bundle)


def test_damaged_and_unwritable_memories_cost_a_verification_only(broken, verified, cache, monkeypatch, tmp_path):
    bundle = broken()
    load(bundle)
    (entry,) = cache.iterdir()
    entry.write_text("no JSON")
    assert load(bundle).variant == INT8
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load(bundle).variant == INT8
    assert verified == [INT8] * 3


@pytest.mark.parametrize(
    ("here", "first"),
    [
        (("avx2",), "fp32"),  # no VNNI: the order by rule
        (("avx2", "avx512_vnni", "amx_int8"), INT8),
        (None, INT8),  # a system that lists none
    ],
)
def test_an_order_measured_with_instruction_sets_that_this_cpu_lacks_is_not_followed(broken, monkeypatch, here, first):
    measured = {HERE: {"cpu": "Intel Xeon", "instruction_sets": ["amx_tile", "avx2", "avx512_vnni"]}}
    bundle = broken(measured=measured)
    monkeypatch.setattr(processor, "instruction_sets", lambda *root: here)
    monkeypatch.setattr(processor, "name", lambda *root: "an old CPU")
    if first == INT8:
        assert load(bundle).variant == INT8
        return
    told = r"measured on Intel Xeon, (?s:.)*an old CPU, lacks (?s:.)*\(avx512_vnni\): the order by rule is used, fp32"
    with pytest.warns(BundleWarning, match=told) as warned:
        assert load(bundle).variant == "fp32"
    assert len(warned) == 1 and "instead" not in str(warned[0].message)
    assert load(bundle, variant=INT8).variant == INT8


def test_a_moved_bundle_whose_rule_fails_too_has_one_warning_for_both(broken, monkeypatch):
    bundle = broken("fp32", measured={HERE: {"cpu": "Intel Xeon", "instruction_sets": ["avx512_vnni"]}})
    monkeypatch.setattr(processor, "instruction_sets", lambda *root: ())
    with pytest.warns(BundleWarning) as warned:
        assert load(bundle).variant == INT8
    (text,) = (str(each.message) for each in warned)
    assert "measured on Intel Xeon" in text and "fp32 is not used on this machine" in text
    assert text.endswith(f"{INT8} is used instead.")


def test_an_order_that_is_the_same_by_rule_needs_no_warning(many_bundle, monkeypatch):
    measured = {HERE: {"cpu": "Intel Xeon", "instruction_sets": ["avx512_vnni"]}}
    bundle = many_bundle("fp32", INT8, engines={HERE: ["fp32", INT8], "onnxruntime": ["fp32", INT8]}, measured=measured)
    monkeypatch.setattr(processor, "instruction_sets", lambda *root: ())
    assert load(bundle).variant == "fp32"
    assert platform.machine() in HERE
