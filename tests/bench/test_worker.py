from __future__ import annotations

import json
import subprocess
import sys

from edgekd.bench import worker
from edgekd.bench.environment import environment
from edgekd.bench.measurement import Measurement, ModelFile
from edgekd.bench.process import Job, Options, Target
from edgekd.store.artifacts import file_digest


def answer(job: Job) -> tuple[dict, str]:
    """What the process writes to stdout, and to stderr."""
    command = [sys.executable, "-m", "edgekd.bench.worker"]
    done = subprocess.run(command, input=job.model_dump_json(), capture_output=True, text=True, timeout=120)
    (line,) = done.stdout.splitlines()
    return json.loads(line), done.stderr


def job(path, **changes) -> Job:
    file = ModelFile(name=path.name, sha256=file_digest(path), size_bytes=path.stat().st_size)
    target = Target(path=str(path), name="net", variant=None, backend="onnxruntime", file=file)
    options = Options(batch_sizes=(2,), threads=1, seconds=0.02, warmup_seconds=0.0, input_shape=None)
    return Job(target=target, options=options, batch_size=2, device="this-machine").model_copy(update=changes)


def test_one_line_of_json_with_the_measurement_of_that_job(small_net):
    found, _ = answer(job(small_net))
    measured = Measurement.model_validate(found["measurement"])
    assert (measured.target, measured.batch_size, measured.threads) == ("net", 2, 1)
    assert measured.inputs[0].shape == (2, 3, 8, 8) and measured.file.sha256 == file_digest(small_net)


def test_an_error_is_an_answer_too(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    found, _ = answer(job(broken))
    assert found["error"]["class"] == "BackendError" and "cannot load" in found["error"]["what"]


def test_a_time_on_an_emulated_processor_is_not_measured(small_net, monkeypatch):
    assert worker.measure(job(small_net)).provenance == "measured"
    emulated = environment().model_copy(update={"emulated": "a sign"})
    monkeypatch.setattr(worker, "environment", lambda: emulated)
    found = worker.measure(job(small_net))
    assert (found.provenance, found.environment.emulated) == ("emulated", "a sign")
