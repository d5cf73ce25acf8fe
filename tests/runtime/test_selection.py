from __future__ import annotations

import sys

import numpy as np
import pytest

from edgekd import runtime
from edgekd.errors import BackendError
from edgekd.runtime import engines
from edgekd.runtime.backends import tensorrt

ALL = ("fp32", "fp16", "int8", "int8-asym")


def test_load_prefers_what_was_built_and_reports_it(device, many_bundle):
    device()
    bundle = many_bundle(*ALL)
    assert runtime.load(bundle).engine.startswith("onnxruntime ")
    engines.build(bundle, ["fp32"])
    assert (runtime.load(bundle).engine, runtime.load(bundle).variant) == ("tensorrt 10.3.0", "fp32")
    assert runtime.load(bundle, variant="fp16").engine.startswith("onnxruntime ")
    assert runtime.load(bundle, backend="onnxruntime").variant == "fp32"
    with pytest.raises(BackendError, match=r"on this device for int8(?s:.)*edgekd build .* --variant int8"):
        runtime.load(bundle, backend="tensorrt", variant="int8")
    engines.build(bundle)
    model = runtime.load(bundle)
    assert model.variant == "int8" and model.verify().difference < 1e-5
    with pytest.raises(BackendError, match=r"not built for(?s:.)*\(8, 3, 4, 4\)"):
        model.run(np.load(bundle / "vectors" / "input.npy").repeat(3, axis=0))


def test_a_tensorrt_that_does_not_load_is_not_usable(device, linear_bundle, monkeypatch):
    device()
    engines.build(linear_bundle)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: type("Spec", (), {"origin": "x"}))
    assert runtime.load(linear_bundle).engine.startswith("onnxruntime ")
    with pytest.raises(BackendError, match="cannot be imported"):
        runtime.load(linear_bundle, backend="tensorrt")
