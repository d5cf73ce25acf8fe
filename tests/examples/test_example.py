"""The example package: each plugin alone, then all of them through the command line, from a folder and installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd import plugins
from edgekd.errors import BackendError, DataError
from edgekd.recipe.settings import DataSettings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "edgekd-example" / "edgekd_example"
# Where scripts/test installs the package: the rest of the suite does not see it.
INSTALLED = Path(sys.prefix) / "edgekd-examples"

RECIPE = """\
name: example
data: {source: npz, root: digits.npz, image_size: 16, validation: 0.2, test: 0.2}
teacher: {model: cifar/resnet8, train: {epochs: 1, batch_size: 32}}
student: {model: cifar/resnet8}
distill:
  objective:
    - {method: jensen_shannon, beta: 0.4, weight: 0.9}
    - {method: cross_entropy, weight: 0.1}
  epochs: 1
  batch_size: 32
  baseline: false
export: {variants: [fp32]}
bench: {devices: [raspberry-pi-5]}
"""


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(plugins.FOLDERS, str(FOLDER))
    return FOLDER


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    file = tmp_path_factory.mktemp("data") / "digits.npz"
    pixels = np.rint(images[:400].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    np.savez(file, images=pixels, labels=labels[:400], classes=[str(digit) for digit in range(10)])
    return file


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_the_loss_is_its_formula(example, beta):
    """In float64, against NumPy and the definition."""
    torch = pytest.importorskip("torch")
    loss = plugins.load("method", "jensen_shannon").function
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    q, p = (np.exp(z.numpy() / 3) / np.exp(z.numpy() / 3).sum(1, keepdims=True) for z in (student, teacher))
    m = beta * p + (1 - beta) * q
    rows = beta * (p * np.log(p / m)).sum(1) + (1 - beta) * (q * np.log(q / m)).sum(1)
    student.requires_grad_()
    teacher.requires_grad_()
    value = loss(student, teacher, temperature=3.0, beta=beta)
    assert value.item() == pytest.approx(9 * rows.mean(), rel=1e-12)
    value.backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
    assert loss(student, student, beta=beta).item() == pytest.approx(0, abs=1e-12)


def test_the_loss_stays_bounded(example):
    torch = pytest.importorskip("torch")
    loss = plugins.load("method", "jensen_shannon").function
    far = torch.tensor([[1000.0, 0.0]], dtype=torch.float64)
    assert loss(far, far.flip(1), temperature=1.0).item() == pytest.approx(np.log(2))


def test_the_source_reads_what_was_saved(example, digits):
    source = plugins.load("source", "npz")
    settings = DataSettings(source="npz", root=digits)
    raw = source.read(settings)
    with np.load(digits) as saved:
        assert raw.classes == tuple(saved["classes"])
        assert raw.splits["train"].labels.tolist() == saved["labels"].tolist()
        assert np.array_equal(np.asarray(raw.splits["train"].image(7)), saved["images"][7])
    before = source.fingerprint(settings)
    os.utime(digits, ns=(1, 1))
    assert source.fingerprint(settings) != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": None}, "classes is not a file in the archive"),
        ({"images": np.zeros((2, 4, 4), np.float32)}, "float32"),
        ({"images": np.zeros((2, 4, 4, 4), np.uint8)}, r"uint8 \(2, 4, 4, 4\)"),
        ({"images": np.zeros((2, 4), np.uint8)}, r"uint8 \(2, 4\)"),
        ({"labels": np.zeros(3, int)}, r"\(3,\)"),
        ({"labels": np.array([0, 2])}, "labels outside the classes"),
        ({"labels": np.array([{}, {}])}, "cannot be read"),
    ],
)
def test_the_source_states_what_is_wrong_with_a_file(example, tmp_path, changes, message):
    good = {"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array([0, 1]), "classes": np.array(["a", "b"])}
    content = {name: array for name, array in {**good, **changes}.items() if array is not None}
    np.savez(tmp_path / "data.npz", **content)
    with pytest.raises(DataError, match=message):
        plugins.load("source", "npz").read(DataSettings(source="npz", root=tmp_path / "data.npz"))


def test_the_source_needs_a_file(example, tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    for root, message in ((None, "set data.root"), (tmp_path, "reads one file"), (tmp_path / "text.npz", "read")):
        with pytest.raises(DataError) as caught:
            plugins.load("source", "npz").read(DataSettings(source="npz", root=root))
        assert message in str(caught.value)


def test_the_backend_computes_what_onnx_runtime_computes(example, linear_bundle):
    backend = plugins.load("backend", "onnx_reference")
    assert backend.available() is None
    graph = linear_bundle / "model.fp32.onnx"
    array = np.load(linear_bundle / "vectors" / "input.npy")
    with backend.open(graph) as session, plugins.load("backend", "onnxruntime").open(graph) as other:
        assert (session.inputs, session.outputs) == (other.inputs, other.outputs)
        np.testing.assert_allclose(session.bind(array)(), other.bind(array)(), rtol=1e-5)
        with pytest.raises(BackendError, match="another shape"):
            session.bind(array[0])
    with pytest.raises(BackendError, match="closed"):
        session.bind(array)
    with pytest.raises(BackendError, match="single-threaded"):
        backend.open(graph, threads=2)


def _edgekd(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekd", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def test_it_runs_from_a_folder(linear_bundle):
    """The folder is relative, and the process that measures starts elsewhere."""
    options = ("--backend", "onnx_reference", "--seconds", "0.02", "--json")
    shown = _edgekd("bench", linear_bundle, *options, cwd=FOLDER.parent, EDGEKD_PLUGINS=FOLDER.name)
    (record,) = json.loads(shown.stdout)
    assert record["engine"].startswith("onnx reference "), shown.stderr


@pytest.fixture
def site() -> str:
    if not INSTALLED.is_dir():
        assert not os.environ.get("EDGEKD_REQUIRE_EXAMPLE"), f"scripts/test installs the example into {INSTALLED}"
        pytest.skip("the example is not installed: scripts/test does it")
    return os.pathsep.join([str(ROOT), str(INSTALLED)])


def test_installed_it_distills_and_its_student_is_measured(site, digits, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "digits.npz").write_bytes(digits.read_bytes())
    listed = _edgekd("plugins", "--check", cwd=tmp_path, PYTHONPATH=site)
    assert listed.returncode == 0 and "jensen_shannon  (edgekd-example 0.1.0)" in listed.stdout, listed.stdout
    run = _edgekd("run", "recipe.yaml", cwd=tmp_path, PYTHONPATH=site)
    assert run.returncode == 0, run.stderr
    bundle = tmp_path / "runs" / "example" / "bundle"
    options = ("--backend", "onnx_reference", "--seconds", "0.02", "--json")
    shown = _edgekd("bench", bundle, *options, cwd=tmp_path, PYTHONPATH=site)
    (record,) = json.loads(shown.stdout)
    assert record["engine"].startswith("onnx reference "), shown.stderr
    assert record["latency_ms"]["p50"] > 0
