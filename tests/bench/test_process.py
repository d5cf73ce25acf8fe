from __future__ import annotations

import sys

import pytest

from edgekd.bench.measurement import ModelFile
from edgekd.bench.process import Job, Options, Target, error_from_json, error_to_json, run_job
from edgekd.errors import BackendError, BenchError, EdgekdError, RecipeError, UnknownNameError

JOB = Job(
    target=Target(
        name="model.onnx",
        variant=None,
        path="/nowhere/model.onnx",
        file=ModelFile(name="model.onnx", sha256="0" * 64, size_bytes=1),
        backend="onnxruntime",
    ),
    device="this-machine",
    batch_size=1,
    options=Options(batch_sizes=(1,), threads=1, seconds=0.01, warmup_seconds=0.0, input_shape=None),
)


def worker(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT"])
def test_a_killed_worker_is_an_error_that_names_the_signal(name):
    with pytest.raises(BenchError, match=f"model.onnx\n  found: {name}"):
        run_job(JOB, command=worker(f"import os, signal; os.kill(os.getpid(), signal.{name})"))


def test_a_failing_worker_is_an_error_with_its_last_words():
    with pytest.raises(BenchError, match="MemoryError: Unable to allocate"):
        run_job(JOB, command=worker("raise MemoryError('Unable to allocate')"))


def test_an_error_of_the_real_worker_comes_back_as_its_class():
    with pytest.raises(BackendError, match="does not exist") as caught:
        run_job(JOB)
    assert caught.value.hint is not None


def test_the_current_folder_is_not_a_place_to_import_from(tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text("raise RuntimeError('imported from the current folder')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendError, match="does not exist"):
        run_job(JOB)


@pytest.mark.parametrize(
    "error",
    [
        BenchError("what", found=[1, 2], allowed=None, hint="next"),
        UnknownNameError("backend", "onnx", ["onnxruntime"]),
        RecipeError("r.yaml", ["r.yaml:1 wrong"]),
    ],
)
def test_errors_survive_the_journey(error):
    back = error_from_json(error_to_json(error))
    assert type(back) is type(error)
    assert (str(back), back.exit_code) == (str(error), error.exit_code)


def test_only_our_own_classes_are_made():
    value = {"class": "ModuleType", "what": "what", "found": None, "allowed": None, "hint": None}
    assert type(error_from_json(value)) is EdgekdError
