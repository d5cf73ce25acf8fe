"""Where networks come from: trained here, adopted, or begun from weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from samples import resealed

from edgekd.distillation.distill import TeacherSetup, distill
from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.weights import save_state
from edgekd.recipe.settings import AugmentSettings, DistillSettings, ModelSettings, TeacherSettings, TrainSettings
from edgekd.training.host import best_device
from edgekd.training.train import TrainingSetup, adopt, begin, evaluation_loader, initial, origin_of, train

STILL = AugmentSettings(crop="none", flip=False)
SHIFTED = AugmentSettings(padding=1, flip=False)


@pytest.fixture(scope="module")
def trained(small_digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    settings = TrainSettings(epochs=2, batch_size=64, precision="fp32")
    return train(ModelSettings(model="cifar/resnet8"), small_digits, TrainingSetup(settings, STILL), out)


def _folder(tmp_path, name):
    (tmp_path / name).mkdir()
    return tmp_path / name


def test_a_trained_network_states_how_it_was_trained(trained):
    assert len(trained.metrics["history"]) == 2
    assert trained.metrics["validation_accuracy"] == trained.metrics["history"][-1]["validation_accuracy"]
    assert trained.details.training.epochs == 2
    assert trained.metrics["parameters"] == sum(p.numel() for p in checkpoints.load(trained).parameters())


def test_adopting_a_folder_or_a_file_gives_the_same_network(trained, small_digits, tmp_path):
    save_state(checkpoints.load(trained), tmp_path / "w.safetensors")
    torch.save(checkpoints.load(trained).state_dict(), tmp_path / "w.pth")
    paths = (trained.path, tmp_path / "w.safetensors", tmp_path / "w.pth")
    models = [ModelSettings(model="cifar/resnet8", checkpoint=path) for path in paths]
    adopted = [adopt(model, small_digits, _folder(tmp_path, str(i))) for i, model in enumerate(models)]
    digests = {checkpoint.manifest.files["weights.safetensors"].sha256 for checkpoint in adopted}
    assert digests == {trained.manifest.files["weights.safetensors"].sha256}


def test_training_begins_from_the_checkpoint_that_is_named(trained, small_digits):
    network, architecture = initial(ModelSettings(model="cifar/resnet8", checkpoint=trained.path), small_digits)
    pairs = zip(network.parameters(), checkpoints.load(trained).parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert architecture.num_classes == 10


def test_a_key_follows_the_weights_not_their_path(trained, tmp_path):
    for name in ("a", "b"):
        save_state(checkpoints.load(trained), _folder(tmp_path, name) / "w.safetensors")
    a, b = (ModelSettings(model="cifar/resnet8", checkpoint=tmp_path / n / "w.safetensors") for n in ("a", "b"))
    assert origin_of(a) == origin_of(b) != origin_of(ModelSettings(model="cifar/resnet8"))


def test_what_cannot_be_adopted_is_named(trained, small_digits, tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        origin_of(ModelSettings(model="cifar/resnet8", checkpoint=tmp_path / "gone.pth"))
    with pytest.raises(ModelError, match=r"holds another model(?s:.)*cifar/resnet8"):
        initial(ModelSettings(model="cifar/resnet20", checkpoint=trained.path), small_digits)
    save_state(torch.nn.Linear(2, 100), tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="do not fit this network"):
        initial(ModelSettings(model="cifar/resnet8", checkpoint=tmp_path / "other.safetensors"), small_digits)


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        ("torchvision/mobilenet_v3_small", {"arguments": {"width_mult": 0.5}}, "other arguments"),
        ("torchvision/mobilenet_v3_small", {"stem": "standard"}, "another stem"),
        ("torchvision/mobilenet_v3_small", {"activation": "relu"}, "other activations"),
    ],
)
def test_a_folder_that_contradicts_the_recipe_is_refused(small_digits, tmp_path, model, more, message):
    own = ModelSettings(model=model, arguments={"width_mult": 0.25})
    settings = TrainSettings(epochs=1, batch_size=128)
    made = train(own, small_digits, TrainingSetup(settings, STILL), _folder(tmp_path, "made"))
    agreed = initial(own.model_copy(update={"checkpoint": made.path}), small_digits)[1]
    assert agreed.arguments == {"width_mult": 0.25} and agreed.small_stem
    assert initial(ModelSettings(model=model, checkpoint=made.path), small_digits)[1] == agreed
    with pytest.raises(ModelError, match=message):
        initial(ModelSettings(model=model, checkpoint=made.path, **more), small_digits)


def test_a_student_that_saw_other_colours_is_refused_as_it_is_and_noted_in_a_training(trained, small_digits, tmp_path):
    seen = replace(small_digits.details.preprocessing, mean=(0.5, 0.5, 0.5))
    data = resealed(small_digits, tmp_path / "data", preprocessing=seen)
    student = ModelSettings(model="cifar/resnet8", checkpoint=trained.path)
    with pytest.raises(ModelError, match=r"another normalisation(?s:.)*remove data.mean"):
        begin(student, data, adopted=True)
    assert any("trained with mean" in warning for warning in begin(student, data).warnings)
    assert begin(student, small_digits).warnings == []


@torch.no_grad()
def test_a_teacher_that_saw_other_colours_is_given_them(trained, small_digits, tmp_path):
    seen = replace(small_digits.details.preprocessing, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    data = resealed(small_digits, tmp_path / "data", preprocessing=seen)
    teacher = TeacherSettings(model="cifar/resnet8", checkpoint=trained.path)
    given = next(iter(evaluation_loader(data, "validation").epoch(0))).images.cpu()
    own = next(iter(evaluation_loader(small_digits, "validation").epoch(0))).images.cpu()
    alone = begin(teacher, small_digits)
    assert alone.architecture.edits == () and not torch.allclose(given, own, atol=0.1)
    converted = begin(teacher, data)
    assert torch.allclose(converted.network.eval()(given), alone.network.eval()(own), atol=1e-4)
    taken = adopt(teacher, data, _folder(tmp_path, "taken"))
    assert taken.details.preprocessing == seen
    assert torch.allclose(checkpoints.load(taken)(given), alone.network(own), atol=1e-4)


@pytest.fixture
def renamed(trained, tmp_path):
    """The same network, whose classes 3 and 5 stand the other way round."""
    folder = _folder(tmp_path, "renamed")
    names = [{"3": "5", "5": "3"}.get(name, name) for name in trained.classes]
    architecture, seen = trained.details.architecture, trained.details.preprocessing
    network = checkpoints.load(trained)
    checkpoints.save(network, architecture, preprocessing=seen, classes=tuple(names), out=folder)
    return ModelSettings(model="cifar/resnet8", checkpoint=folder)


def test_a_folder_whose_classes_are_named_otherwise_is_not_adopted(renamed, small_digits, tmp_path):
    with pytest.raises(ModelError, match=r"class 3 is 5, and 3 in the data"):
        adopt(renamed, small_digits, _folder(tmp_path, "out"))


def test_trained_further_it_keeps_its_classifier_and_reports_it(renamed, small_digits, tmp_path):
    settings = TrainSettings(epochs=1, batch_size=64, precision="fp32")
    made = train(renamed, small_digits, TrainingSetup(settings, STILL), _folder(tmp_path, "out"))
    (warning,) = made.metrics["warnings"]
    assert "class 3 is 5, and 3 in the data" in warning and made.classes == small_digits.classes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_teacher_student_and_adoption_on_a_gpu(small_digits, tmp_path):
    assert best_device().type == "cuda"
    model = ModelSettings(model="cifar/resnet8")
    settings = TrainSettings(epochs=10, batch_size=32, ema=0.9)
    teacher = train(model, small_digits, TrainingSetup(settings, SHIFTED), _folder(tmp_path, "teacher"))
    assert teacher.metrics["validation_accuracy"] > 0.8
    student = distill(
        ModelSettings(model="torchvision/mobilenet_v3_small", arguments={"width_mult": 0.35}),
        TeacherSetup(teacher),
        DistillSettings().objective,
        small_digits,
        TrainingSetup(DistillSettings(epochs=20, batch_size=32), SHIFTED),
        _folder(tmp_path, "student"),
    )
    assert student.metrics["validation_accuracy"] > 0.5
    again = adopt(
        ModelSettings(model="cifar/resnet8", checkpoint=teacher.path), small_digits, _folder(tmp_path, "again")
    )
    assert again.metrics["validation_accuracy"] == pytest.approx(teacher.metrics["validation_accuracy"], abs=0.01)
    assert Checkpoint.load(again.path).digest == again.digest
