"""Networks of the user's own in a recipe: found, read, and refused where nobody asked for their code to run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from edgekd.errors import ArtifactError, RecipeError, UsageError
from edgekd.models.architecture import Architecture
from edgekd.models.checkpoint import Checkpoint, CheckpointDetails
from edgekd.recipe.code import Reference, carried_code, code_in, reference
from edgekd.recipe.load import from_mapping, load
from edgekd.runtime.preprocess import Preprocessing

# Running it would leave a trace: none of these tests may.
NETS = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n\ndef build(num_classes): ...\n"


def _recipe(**changed):
    return {
        "name": "own",
        "data": {"source": "digits"},
        "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
        "student": {"model": "nets.py:build"},
        **changed,
    }


@pytest.fixture
def nets(tmp_path: Path):
    """Beside a recipe in a folder that is not the current one."""
    file = tmp_path / "own" / "nets.py"
    file.parent.mkdir()
    file.write_text(NETS)
    yield file
    assert not file.with_name("ran").exists()


def _written(nets: Path, **changed) -> Path:
    file = nets.with_name("recipe.yaml")
    file.write_text(yaml.safe_dump(_recipe(**changed)))
    return file


def _checkpoint(folder: Path, nets: Path) -> Path:
    """What a folder with code looks like to the reader of a recipe."""
    place = folder / "code" / "0123" / "nets.py"
    place.parent.mkdir(parents=True)
    place.write_bytes(nets.read_bytes())
    (folder / "weights.safetensors").touch()
    details = CheckpointDetails(
        architecture=Architecture(model="cifar/resnet8", num_classes=2),
        preprocessing=Preprocessing((16, 16), (16, 16)),
        classes=("a", "b"),
    )
    Checkpoint.seal(folder, details=details, metrics={"parameters": 1, "macs": 1})
    return place


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("/n/nets.py:build", Reference(Path("/n/nets.py"), "build")),
        ("a/nets.py:Net", Reference(Path("/r/a/nets.py"), "Net")),
        ("timm/resnet18", None),
        ("nets.py", None),
        ("nets.py:a.b", None),
    ],
)
def test_a_reference_is_a_file_and_a_function(model, found):
    assert reference(model, Path("/r")) == found


def test_the_path_is_relative_to_the_recipe(nets):
    recipe = load(_written(nets), allow_code=True)
    assert recipe.settings.student.model == f"{nets}:build"
    assert recipe.code[0].content == nets.read_bytes()
    # The text is the user's, and the command runs it again.
    assert "nets.py:build" in recipe.text and str(nets) not in recipe.text
    assert recipe.command.endswith("--allow-code")


def test_from_python_the_path_is_relative_to_the_current_folder(nets, monkeypatch):
    monkeypatch.chdir(nets.parent)
    assert from_mapping(_recipe(), allow_code=True).settings.student.model == f"{nets}:build"


def test_without_being_asked_for_no_code_is_accepted(nets):
    with pytest.raises(UsageError) as raised:
        load(_written(nets))
    digest = hashlib.sha256(nets.read_bytes()).hexdigest()
    assert raised.value.exit_code == 2
    for part in (str(nets), digest, "with your rights", "read it", "--allow-code"):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    "scheme",
    [
        {"name": "online", "peers": [{"model": "cifar/resnet8"}, {"model": "nets.py:build"}]},
        {"name": "assistant", "model": "nets.py:build"},
    ],
)
def test_models_in_a_schemes_parameters_are_code_too(nets, scheme):
    content = _recipe(student={"model": "cifar/resnet8"}, distill={"scheme": scheme})
    if scheme["name"] == "online":
        del content["teacher"]
    file = nets.with_name("recipe.yaml")
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match="--allow-code"):
        load(file)
    recipe = load(file, allow_code=True)
    assert [code.path for code in recipe.code] == [nets]
    assert f"{nets}:build" in str(recipe.settings.distill.scheme.parameters)


def test_a_checkpoint_that_carries_code_is_refused_without_being_asked_for(nets, tmp_path):
    place = _checkpoint(tmp_path / "c", nets)
    teacher = {"model": "cifar/resnet8", "checkpoint": str(tmp_path / "c")}
    content = _recipe(teacher=teacher, student={"model": "cifar/resnet8"})
    with pytest.raises(UsageError, match="brings Python code") as raised:
        from_mapping(content)
    assert str(place) in str(raised.value)
    assert [file.path for file in from_mapping(content, allow_code=True).code] == [place]
    place.write_text("import os\n")
    with pytest.raises(ArtifactError, match=r"nets\.py was changed after it was written"):
        from_mapping(content, allow_code=True)


def test_permission_for_one_file_is_none_for_another(nets, tmp_path):
    _checkpoint(tmp_path / "c", nets)
    recipe = _written(nets, teacher={"model": "cifar/resnet8", "checkpoint": str(tmp_path / "c")})
    with pytest.raises(UsageError, match="--allow-code") as raised:
        load(recipe, allow_code={nets})
    assert f"{nets}," not in str(raised.value)


def test_a_manifest_cannot_name_a_file_outside_its_folder(nets, tmp_path):
    place = _checkpoint(tmp_path / "c", nets)
    place.unlink()
    place.symlink_to(nets)
    with pytest.raises(ArtifactError, match="outside itself"):
        carried_code(tmp_path / "c")


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ({"model": "nets.py"}, "does not name a function"),
        ({"model": "nets.py:a-b"}, "does not name a function"),
        ({"model": "missing.py:build"}, r"missing\.py of a network cannot be read; found: No such file"),
        ({"model": "nets.py:build", "pretrained": True}, "has no published weights"),
        ({"model": "nets.py:build", "stem": "small"}, "remove stem"),
    ],
)
def test_mistakes_are_reported_with_their_line(nets, student, message):
    with pytest.raises(RecipeError, match=message) as raised:
        load(_written(nets, student=student))
    assert "recipe.yaml:" in raised.value.problems[0]


def test_a_recipe_of_published_networks_has_no_code():
    content = _recipe(student={"model": "cifar/resnet8"})
    assert list(code_in(content)) == [] and from_mapping(content).code == ()
