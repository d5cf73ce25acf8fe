"""What every backend keeps to, and that one more of them is one object."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from samples import added_plugin
from turns import given_turns

from edgekd import plugins
from edgekd.bench import worker
from edgekd.bench.environment import environment, fingerprint
from edgekd.cli._doctor import examine
from edgekd.errors import BackendError, UsageError
from edgekd.export import preference
from edgekd.export.model_id import ModelId
from edgekd.export.preference import Evidence
from edgekd.recipe.settings import BenchSettings
from edgekd.report.collect import not_run
from edgekd.runtime import backends, engines, load
from edgekd.runtime.bundle import EngineKey, read
from edgekd.runtime.statistics import packed
from edgekd.stages.benchmark import measure_models

NAMES = plugins.names("backend")
MACHINES = (None, "x86_64", "aarch64")


@pytest.mark.parametrize("name", NAMES)
def test_a_backend_declares_what_others_need(name):
    backend = backends.find(name)
    assert backend.name == name and backend.title
    assert backend.suffixes and all(suffix.startswith(".") for suffix in backend.suffixes)
    assert backend.opens_graphs != (backend.engines is not None)
    assert backend.available() is None or backend.available().strip()
    for machine in MACHINES:
        runs = backend.activations(machine)
        assert set(backend.activations(None)) <= set(runs) <= {"float32", "float16", "int8", "uint8"}
        assert len(set(runs)) == len(runs)


@pytest.mark.parametrize("name", NAMES)
def test_declaring_it_imports_no_engine(name):
    code = f"import sys; from edgekd.runtime import backends; b = backends.find({name!r}); b.available(), b.version();"
    code += "assert not {'onnxruntime', 'tensorrt', 'torch', 'onnx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(params=NAMES)
def session(request, device, linear_bundle):
    """Every backend's session of the linear network; those that build engines build one, on stand-ins."""
    backend = backends.find(request.param)
    if backend.engines is not None:
        device()
        (built,) = engines.build(linear_bundle, backend=backend.name)
        return backend.open(built.path)
    if (reason := backend.available()) is not None:
        pytest.skip(reason)
    return backend.open(read(linear_bundle).graph("fp32"), threads=1)


def test_a_session_names_its_tensors_and_answers_any_batch(session):
    assert session.engine and session.device
    (fed,), (answer,) = session.inputs, session.outputs
    assert (fed.name, fed.shape[1:], fed.dtype) == ("input", (3, 4, 4), "float32") and isinstance(fed.shape[0], str)
    assert (answer.name, answer.shape[1:]) == ("logits", (3,))
    generator = np.random.default_rng(0)
    one, two = (generator.random((size, 3, 4, 4), np.float32) for size in (1, 2))
    calls = [(session.bind(each), each) for each in (one, two)]
    for call, array in (*calls, *calls):  # bound calls do not disturb each other
        np.testing.assert_allclose(call(), array.mean((2, 3)), atol=1e-5)
    np.testing.assert_array_equal(session.bind({"input": one})(), session.bind(one)())
    for wrong in (one[:, :, :2], {"input": one[:, :, :2]}):
        with pytest.raises(BackendError, match="has another shape"):
            session.bind(wrong)
    for others in ({}, {"other": one}, {"input": one, "other": one}):
        with pytest.raises(BackendError, match="not the model's inputs(?s:.)*allowed: input"):
            session.bind(others)


def test_a_closed_session_answers_no_more(session):
    with session as same:
        assert same is session
    session.close()
    with pytest.raises(BackendError, match="was closed"):
        session.bind(np.zeros((1, 3, 4, 4), np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_not_a_model_is_refused(name, tmp_path):
    backend = backends.find(name)
    (tmp_path / "x.txt").write_bytes(b"no model")
    with pytest.raises(BackendError):
        backend.open(tmp_path / "x.txt")


def test_only_a_backend_that_builds_engines_is_asked_to(linear_bundle):
    with pytest.raises(UsageError, match=r"ONNX Runtime runs a bundle's graphs(?s:.)*allowed: tensorrt"):
        engines.build(linear_bundle, backend="onnxruntime")


def test_a_loaded_model_is_closed_by_with(linear_bundle):
    with load(linear_bundle) as model:
        assert model.verify().images == 3
    with pytest.raises(BackendError, match="was closed"):
        model.verify()


@pytest.fixture
def another(monkeypatch) -> backends.Backend:
    """One more backend that runs graphs: ONNX Runtime under another name, which prefers half precision."""
    known = backends.find("onnxruntime")

    def activations(machine: str | None) -> tuple[backends.Activations, ...]:
        return "float16", "float32"

    own = replace(known, title="Another", activations=activations, version=lambda: "9.8", open_as_written=None)
    return added_plugin(monkeypatch, "backend", plugins.named(own, "another"))


class Exported:
    """As much of an OnnxModel as is measured."""

    digest = "0" * 64

    def __init__(self, graph):
        self.graph = graph


def test_one_more_backend_is_measured_under_its_own_name(another, many_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("edgekd.bench.measure.run_job", worker.measure)  # the other process knows no such backend
    bundle = read(many_bundle("fp32", "int8"))
    models = {ModelId("student", name): Exported(bundle.graph(name)) for name in bundle.variants}
    (tmp_path / "out").mkdir()
    settings = BenchSettings(batch_sizes=(1,), seconds=0.01, warmup_seconds=0.0)
    records = measure_models(models, settings, tmp_path / "out").records
    found = {(record["backend"], record["role"], record["variant"]) for record in records}
    expected = {("another", "student", "fp32"), ("onnxruntime", "student", "fp32")}
    assert found == expected


def test_one_more_backend_is_preferred_listed_and_recorded(another, many_bundle):
    shipped = {name: ModelId("student", name) for name in ("fp32", "fp16", "int8")}
    correct = packed(np.arange(10) < 9)
    scores = {name: {"accuracy": 0.9, "samples": 10, "correct": correct} for name in shipped.values()}
    anywhere, here = EngineKey("another"), EngineKey.here("another")
    sizes = dict.fromkeys(shipped, 1000)
    order = preference.preferences(Evidence(shipped, scores, sizes))
    assert order[anywhere].order == order[here].order == ["fp16", "fp32"]
    turns = {"another": given_turns({"fp32": 1.0, "fp16": 2.0}, backend="another")}
    order = preference.preferences(Evidence(shipped, scores, sizes, turns=turns))
    assert order[here].order == ["fp32", "fp16"] and order[anywhere].order == ["fp16", "fp32"]
    assert preference.titles()["another"] == "Another"
    assert environment().engines["Another"] == "9.8"
    assert ("another", "Another 9.8", True) in {(entry.what, entry.found, entry.ok) for entry in examine()}
    assert load(many_bundle("fp32", "fp16"), backend="another").variant == "fp16"


def test_a_backend_that_is_not_installed_is_reported_to_have_no_figures(another, monkeypatch):
    absent = replace(another, title="Absent", available=lambda: "it is not installed", version=lambda: None)
    before = fingerprint(environment())
    added_plugin(monkeypatch, "backend", plugins.named(absent, "absent"))
    assert {"what": "Absent", "why": "it is not installed"} in not_run((), ())
    assert fingerprint(environment()) == before
