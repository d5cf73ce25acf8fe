"""Building and finding a bundle's engines, over the stand-ins for a GPU and for TensorRT."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tensorrt_names import missing, used_names
from tensorrt_stand_in import API, namespace

from edgekd.errors import BackendError
from edgekd.runtime import engines
from edgekd.runtime.backends import BuildOptions, _tensorrt_engines
from edgekd.runtime.bundle import read


@pytest.mark.parametrize("version", API)
def test_only_names_that_every_version_has(version):
    used = used_names(Path(_tensorrt_engines.__file__).read_text())
    assert {"ILogger", "ILogger.ERROR", "ILogger.INTERNAL_ERROR"} <= used
    assert not missing(used, API[version])


def test_the_log_keeps_the_last_error_and_nothing_else():
    trt = namespace("10.3.0")
    log = _tensorrt_engines.new_log(trt)
    assert log.error == "no reason given"
    log.log(trt.ILogger.ERROR, "first")
    log.log(trt.ILogger.INTERNAL_ERROR, "second" * 100)
    log.log(trt.ILogger.WARNING, "a warning")
    assert log.error == ("second" * 100)[:300]


@pytest.mark.parametrize("content", ["import no_such_library", "raise OSError('libnvinfer.so.10: not found')"])
def test_a_tensorrt_that_cannot_be_loaded_is_one_clear_message(tmp_path, monkeypatch, content):
    (tmp_path / "tensorrt.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(BackendError, match="cannot be imported(?s:.)*(no_such_library|libnvinfer)(?s:.)*same version"):
        _tensorrt_engines.import_tensorrt()


def test_the_device_is_the_gpu_that_engines_are_built_for(device):
    device(name="NVIDIA Thor", capability=(11, 0))
    assert _tensorrt_engines.device() == {"gpu": "NVIDIA Thor", "capability": (11, 0)}


def test_progress_names_each_variant_before_it_is_built(device, many_bundle):
    device()
    reported = []
    manifest = read(many_bundle("fp32", "fp16"))
    made = _tensorrt_engines.build(
        manifest, ("fp16", "fp32"), BuildOptions(), progress=lambda *given: reported.append(given)
    )
    assert reported == [(0, 2, "fp16"), (1, 2, "fp32")]
    assert _tensorrt_engines.built(manifest) == {engine.variant: engine.path for engine in made}


def test_engines_of_another_graph_or_version_are_not_this_bundles(device, linear_bundle):
    device()
    assert _tensorrt_engines.built(read(linear_bundle)) == {}
    engines.build(linear_bundle)
    assert set(_tensorrt_engines.built(read(linear_bundle))) == {"fp32"}
    device("10.13.3")
    assert _tensorrt_engines.built(read(linear_bundle)) == {}


def test_the_most_recently_requested_engine_is_the_one_that_runs(device, linear_bundle):
    device()
    for size in (2, 4):
        engines.build(linear_bundle, options=BuildOptions(size))
    small, large = engines.build(linear_bundle, options=BuildOptions(2))[0].path, engines.find()[1].path
    os.utime(large.parent / "engine.json", (1, 1))
    assert _tensorrt_engines.built(read(linear_bundle)) == {"fp32": small}
