"""What is built is kept once, however many build it, and only for what decides it."""

from __future__ import annotations

import json
import threading

import pytest

from edgekd import runtime
from edgekd.errors import BackendError
from edgekd.runtime import engine_cache, engines
from edgekd.runtime.backends import BuildOptions
from edgekd.runtime.gpu import Gpu


def test_the_record_states_what_decides_the_engine(device, linear_bundle, tmp_path):
    device()
    (built,) = engines.build(linear_bundle, options=BuildOptions(opt_batch=4, workspace_mb=64, cache=tmp_path / "here"))
    record = json.loads((built.path.parent / "engine.json").read_text())
    assert record["graph"] == runtime.bundle.read(linear_bundle).graph_sha256("fp32")
    assert (record["gpu"], record["compute_capability"]) == ("Orin", "8.7")
    assert (record["engine"], record["version"]) == ("tensorrt", "10.3.0")
    options = {"precision": "fp32", "opt_batch": 4, "max_batch": 8, "workspace_mb": 64}
    assert record["options"].items() >= options.items()
    (found,) = engines.find(cache=tmp_path / "here")
    assert found.path == built.path and found.identity.key == built.path.parent.name


def test_a_record_in_another_engines_place_is_not_taken(device, linear_bundle):
    device()
    path = engines.build(linear_bundle)[0].path
    record = json.loads((path.parent / "engine.json").read_text())
    (path.parent / "engine.json").write_text(json.dumps({**record, "graph": "0" * 64}))
    assert engines.find() == []


def test_builders_at_once_do_not_hurt_each_other(tmp_path):
    gpu = Gpu("Orin", (8, 7), "12.6")
    identity = engine_cache.Identity("a" * 64, "Orin", "8.7", "tensorrt", "10.3.0", {"precision": "fp16"})
    plans = [bytes([number]) * 100_000 for number in range(8)]
    found = []

    def put(plan):
        found.append(engine_cache.put(identity, plan, seconds=1.0, device=gpu, cache=tmp_path))

    threads = [threading.Thread(target=put, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({engine.sha256 for engine in found}) == 1 and len(found) == 8
    assert engine_cache.take(identity, tmp_path).path.read_bytes() in plans
    assert [file.name for file in tmp_path.iterdir()] == [identity.key]


def test_a_cache_that_is_a_file_is_one_message(device, linear_bundle, tmp_path):
    device()
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match=r"file cannot be written(?s:.)*XDG_CACHE_HOME"):
        engines.build(linear_bundle, options=BuildOptions(cache=tmp_path / "file"))
