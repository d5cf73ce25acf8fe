"""Code of a user's own network: carried by its checkpoint, known by its content, run only where asked for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.errors import ArtifactError, ModelError, UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture, Code
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.code import code_of, codes_in, permitted
from edgekd.pruning.checkpoint import prune_checkpoint
from edgekd.pruning.request import Request
from edgekd.recipe.code import read
from edgekd.recipe.settings import AugmentSettings, ModelSettings, PruneTarget, TrainSettings
from edgekd.runtime.preprocess import Preprocessing
from edgekd.stages.quantize import calibrate
from edgekd.training import train as training


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


@pytest.fixture
def saved(nets, tmp_path) -> Checkpoint:
    """An untrained network in a checkpoint."""
    with permitted([read(nets)]):
        code = code_of(f"{nets}:build")
        architecture = Architecture(model=str(code), num_classes=3, code=code)
        return checkpoints.save(
            build(architecture),
            architecture,
            preprocessing=Preprocessing((16, 16), (16, 16)),
            classes=("a", "b", "c"),
            out=_folder(tmp_path / "saved"),
        )


def test_trained_pruned_and_quantized_it_is_rebuilt_in_another_process_and_folder(nets, small_digits, tmp_path):
    model = ModelSettings(model=f"{nets}:build", arguments={"width": 12})
    with permitted([read(nets)]):
        settings = TrainSettings(epochs=1, batch_size=32)
        setup = training.TrainingSetup(settings, AugmentSettings())
        trained = training.train(model, small_digits, setup, _folder(tmp_path / "trained"))
        pruned = prune_checkpoint(trained, Request(PruneTarget(parameters=0.6), 2), _folder(tmp_path / "pruned"))
        quantized = calibrate(pruned, small_digits, 64, _folder(tmp_path / "quantized"))
        expected = checkpoints.load(quantized)(torch.ones(1, 3, 16, 16)).detach().numpy()
    assert pruned.metrics["parameters"] < trained.metrics["parameters"]
    # Elsewhere, without the original.
    shutil.move(tmp_path / "quantized", tmp_path / "elsewhere" / "quantized")
    nets.unlink()
    script = """
        import sys, torch
        from edgekd.models import checkpoint
        from edgekd.models.checkpoint import Checkpoint
        network = checkpoint.load(Checkpoint.load(__import__("pathlib").Path("quantized")), allow_code=True)
        print(network(torch.ones(1, 3, 16, 16)).tolist())
    """
    shown = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path / "elsewhere", capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    np.testing.assert_allclose(json.loads(shown.stdout), expected, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_carries_the_file_and_its_digest_covers_it(saved, nets):
    code = saved.details.architecture.code
    assert code is not None and (code.file, code.function) == ("nets.py", "build")
    assert (saved.path / code.place).read_bytes() == nets.read_bytes()
    assert saved.manifest.files[code.place].sha256 == code.sha256


def test_its_own_copy_is_what_rebuilds_it_and_not_the_changed_original(saved, nets):
    nets.write_text("raise RuntimeError('not this one')\n")
    network = checkpoints.load(saved, allow_code=True)
    assert network(torch.zeros(1, 3, 16, 16)).shape == (1, 3)


def test_a_changed_copy_is_refused(saved):
    place = saved.path / saved.details.architecture.code.place
    place.write_text("import os\n")
    with pytest.raises(ArtifactError, match=r"nets\.py was changed after it was written"):
        Checkpoint.load(saved.path)
    # And once more where the folder was looked at before it was changed.
    with pytest.raises(ArtifactError, match="was changed"):
        checkpoints.load(saved, allow_code=True)


def test_a_manifest_that_names_code_it_does_not_carry_is_refused(saved, tmp_path):
    code = Code(file="nets.py", sha256="0" * 64, function="build")
    shutil.rmtree(saved.path / "code")
    architecture = Architecture(model=str(code), num_classes=3, code=code)
    details = saved.details.model_copy(update={"architecture": architecture})
    with pytest.raises(ArtifactError, match="does not carry the code"):
        checkpoints.load(Checkpoint.seal(saved.path, details=details, metrics=saved.metrics), allow_code=True)


def test_without_being_asked_for_nothing_runs(saved, nets):
    with pytest.raises(UsageError, match="brings Python code") as raised:
        checkpoints.load(saved)
    assert saved.details.architecture.code.sha256 in str(raised.value)
    with pytest.raises(UsageError, match="would run with your rights"):
        build(saved.details.architecture)
    # A run whose recipe brought the same code may.
    with permitted([read(nets)]):
        assert checkpoints.load(saved) is not None


def test_a_compiled_file_beside_it_is_not_run(nets):
    """What was looked at is the .py; a .pyc beside it may hold anything."""
    import importlib.util
    import py_compile

    evil = nets.with_name("evil.py")
    evil.write_text("raise SystemExit('ran')\n")
    py_compile.compile(
        str(evil),
        cfile=importlib.util.cache_from_source(str(nets)),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    with permitted([read(nets)]):
        code = code_of(f"{nets}:build")
        assert build(Architecture(model=str(code), num_classes=2, code=code)) is not None


def test_the_key_is_the_content_and_not_the_path(nets, tmp_path):
    copy = _folder(tmp_path / "other") / "nets.py"
    shutil.copy(nets, copy)
    keys = [training.origin_of(ModelSettings(model=f"{file}:build")) for file in (nets, copy)]
    assert keys[0] == keys[1]
    copy.write_text(copy.read_text() + "# another\n")
    assert training.origin_of(ModelSettings(model=f"{copy}:build")) != keys[0]


def test_during_a_run_the_file_is_what_it_was_when_it_was_permitted(nets):
    with permitted([read(nets)]):
        before = code_of(f"{nets}:build")
        nets.write_text("raise RuntimeError('changed meanwhile')\n")
        assert code_of(f"{nets}:build") == before
        assert build(Architecture(model=str(before), num_classes=2, code=before)) is not None


def test_code_that_differs_from_the_checkpoints_is_refused(saved, nets, small_digits):
    own = saved.details.architecture.code
    model = ModelSettings(model=f"{nets}:build", checkpoint=saved.path)
    nets.write_text(nets.read_text() + "# changed\n")
    with pytest.raises(ModelError, match="the code of .* differs from") as raised:
        training.initial(model, small_digits)
    assert own.sha256 in str(raised.value) and code_of(model.model).sha256 in str(raised.value)
    # The copy may be named, for instance by who has no other.
    copy = saved.path / own.place
    with permitted([read(copy)]):
        network, _ = training.initial(model.model_copy(update={"model": f"{copy}:build"}), small_digits)
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


def test_a_function_of_another_name_is_refused(saved, nets, small_digits):
    with pytest.raises(ModelError, match="built by another function"):
        training.initial(ModelSettings(model=f"{nets}:other", checkpoint=saved.path), small_digits)


def test_the_code_of_experts_is_carried_too(saved):
    part = saved.details.architecture
    edit = {"edit": "experts", "experts": [part.model_dump(mode="json")] * 2, "order": list(range(6))}
    whole = Architecture(model="cifar/resnet8", num_classes=6).edited(edit)
    assert codes_in(whole) == (part.code,)


def test_networks_of_a_source_keep_their_manifests():
    """A field for code must not change the digest of every checkpoint that has none."""
    assert "code" not in Architecture(model="cifar/resnet8", num_classes=2).model_dump(mode="json")
