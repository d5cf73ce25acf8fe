"""Weights in the forms in which training scripts save them, and files that hold code."""

from __future__ import annotations

import argparse
import collections
import copy
import datetime
import os
import pathlib
import re
import types

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from edgekd.errors import ModelError, UsageError
from edgekd.models.state_files import choose


def network(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


def states() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    return network().state_dict(), network().state_dict()


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


PREFIXES = [
    "",
    "module.",
    "model.",
    "backbone.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.module.backbone.",
    "student.net.encoder.",
    "_fsdp_wrapped_module._orig_mod.",
]
WRAPS = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}},
    "nested": lambda s: {"net": {"state_dict": s}, "best_acc": 91.2},
    "with numbers": lambda s: {**s, "epoch": 3},
    "args": lambda s: {"args": argparse.Namespace(lr=0.1, out=pathlib.Path("x")), "model_state": s},
    "numpy": lambda s: {
        "loss": np.float64(0.5),
        "history": np.arange(3),
        "weights": s,
        "at": datetime.datetime(2024, 1, 1),
    },
    "defaultdict": lambda s: {"log": collections.defaultdict(list, loss=[1.0]), "ordered": collections.OrderedDict(s)},
    "namespace": lambda s: {"config": types.SimpleNamespace(a=1), "model": s},
}


@pytest.mark.parametrize("archive", [True, False], ids=["present format", "old format"])
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("wrap", WRAPS)
def test_what_trainers_save_is_found(tmp_path, wrap, prefix, archive):
    state, _ = states()
    torch.save(WRAPS[wrap](prefixed(state, prefix)), tmp_path / "w.pth", _use_new_zipfile_serialization=archive)
    chosen = choose(network(), tmp_path / "w.pth", 3)
    assert chosen.head is None and chosen.warning is None
    assert all(torch.equal(chosen.state[name], value) for name, value in state.items())


def test_a_compiled_part_and_the_counters_of_profilers(tmp_path):
    state, _ = states()
    inner = {name.replace("3.", "3._orig_mod."): value for name, value in state.items()}
    counters = {"n_averaged": torch.tensor(5), "total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)}
    save_file({**inner, **counters}, tmp_path / "w.safetensors")
    chosen = choose(network(), tmp_path / "w.safetensors", 3)
    assert torch.equal(chosen.state["3.weight"], state["3.weight"])


def test_a_lightning_checkpoint_with_its_loss_and_its_optimizers(tmp_path):
    state, _ = states()
    tensors = {**prefixed(state, "model."), "criterion.weight": torch.ones(3), "metric.total": torch.tensor(1.0)}
    torch.save({"state_dict": tensors, "hyper_parameters": {"lr": 0.1}, "callbacks": {}}, tmp_path / "w.ckpt")
    assert torch.equal(choose(network(), tmp_path / "w.ckpt", 3).state["0.weight"], state["0.weight"])


AVERAGED = {
    "timm": lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema},
    "torchvision": lambda raw, ema: {
        "model": raw,
        "model_ema": {**prefixed(ema, "module."), "n_averaged": torch.tensor(9)},
    },
    "ema first": lambda raw, ema: {"ema_model": ema, "model": raw},
    "in one dict": lambda raw, ema: {"state_dict": {**prefixed(raw, "model."), **prefixed(ema, "model_ema.")}},
    "a list of none": lambda raw, ema: {"ema": {"module": ema, "decay": 0.99}, "net": raw, "scheduler": None},
}


@pytest.mark.parametrize("form", AVERAGED)
def test_averaged_weights_are_taken_and_reported(tmp_path, form):
    raw, ema = states()
    torch.save(AVERAGED[form](raw, ema), tmp_path / "w.pth")
    chosen = choose(network(), tmp_path / "w.pth", 3)
    assert torch.equal(chosen.state["0.weight"], ema["0.weight"])
    assert "averaged weights" in chosen.warning and chosen.over in chosen.warning
    other = choose(network(), tmp_path / "w.pth", 3, key=chosen.over)
    assert torch.equal(other.state["0.weight"], raw["0.weight"]) and other.warning is None


def test_several_networks_that_fit_are_refused_by_name(tmp_path):
    teacher, student = states()
    torch.save({"model": {**prefixed(teacher, "teacher."), **prefixed(student, "student.")}}, tmp_path / "w.pth")
    with pytest.raises(
        ModelError, match=r"several state dicts that fit(?s:.)*model.student, model.teacher(?s:.)*`key`"
    ):
        choose(network(), tmp_path / "w.pth", 3)
    chosen = choose(network(), tmp_path / "w.pth", 3, key="student")
    assert torch.equal(chosen.state["0.weight"], student["0.weight"])
    with pytest.raises(UsageError, match="nothing under key: assistant"):
        choose(network(), tmp_path / "w.pth", 3, key="assistant")


def test_equal_copies_are_one(tmp_path):
    state, _ = states()
    torch.save(
        {"model": state, "best_model": {name: value.clone() for name, value in state.items()}}, tmp_path / "w.pth"
    )
    assert choose(network(), tmp_path / "w.pth", 3).label in ("model", "best_model")


def test_another_number_of_classes_is_a_new_last_layer(tmp_path):
    torch.save({"state_dict": prefixed(network(7).state_dict(), "module.")}, tmp_path / "w.pth")
    head = choose(network(), tmp_path / "w.pth", 3).head
    assert head is not None and (head.layer, head.before, head.after) == ("3", 7, 3)


def test_what_does_not_fit_names_the_nearest(tmp_path):
    other = {"optimizer": {"exp": torch.ones(1)}, "model": {"0.weight": torch.zeros(9, 3, 3, 3)}}
    torch.save(other, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"do not fit this network\n  found: under model; \d+ tensors missing"):
        choose(network(), tmp_path / "w.pth", 3)


class _Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


class _Sly:
    """Calls eval, hidden among the things that training scripts save."""

    def __reduce__(self):
        return eval, ("__import__('os').system('touch pwned')",)


@pytest.mark.parametrize("archive", [True, False], ids=["present format", "old format"])
@pytest.mark.parametrize("evil", [_Evil, _Sly])
def test_code_in_a_file_is_not_run(tmp_path, monkeypatch, evil, archive):
    monkeypatch.chdir(tmp_path)
    state, _ = states()
    for content in ({"weight": evil()}, {"model": state, "args": evil()}):
        torch.save(content, "evil.pth", _use_new_zipfile_serialization=archive)
        with pytest.raises(
            ModelError, match=r"evil.pth cannot be read as weights(?s:.)*(system|eval|more than tensors)"
        ):
            choose(network(), tmp_path / "evil.pth", 3)
        assert not (tmp_path / "pwned").exists()


class _Args:
    """Pickled by the name of a class that is allowed; its own code must not run."""

    ran = False

    def __setstate__(self, state):
        type(self).ran = True


def test_a_class_of_the_training_script_is_not_built(tmp_path, monkeypatch):
    monkeypatch.setattr(_Args, "__module__", "__main__")
    monkeypatch.setattr("__main__._Args", _Args, raising=False)
    state, _ = states()
    args = _Args()
    args.lr = 0.1
    torch.save({"args": args, "model": state}, tmp_path / "w.pth")
    assert torch.equal(choose(network(), tmp_path / "w.pth", 3).state["0.weight"], state["0.weight"])
    assert not _Args.ran


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"PK\x03\x04 not a zip"])
def test_corrupt_files_are_one_clear_message(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} cannot be read as weights"):
        choose(network(), tmp_path / name, 3)


def test_a_missing_file_and_a_file_of_something_else(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        choose(network(), tmp_path / "w.pth", 3)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="does not hold a state dict"):
        choose(network(), tmp_path / "list.pth", 3)


WHOLE = {
    "alone": lambda model: model,
    "parallel": lambda model: nn.DataParallel(model),
    "of another package": lambda _model: torchvision.ops.MLP(4, [3]),
    "in a dict": lambda model: {"epoch": 3, "model": model, "args": argparse.Namespace(lr=0.1)},
    "beside moments": lambda model: {"model": model, "optimizer": {"exp_avg": torch.ones(3)}},
}


@pytest.mark.parametrize("archive", [True, False], ids=["present format", "old format"])
@pytest.mark.parametrize("form", WHOLE)
def test_a_whole_pickled_model_is_named_as_such(tmp_path, form, archive):
    torch.save(WHOLE[form](network()), tmp_path / "best.pth", _use_new_zipfile_serialization=archive)
    with pytest.raises(ModelError, match=r"holds a whole pickled model, which edgekd never unpickles") as refused:
        choose(network(), tmp_path / "best.pth", 3)
    assert re.search(r"found: an object of torch(vision)?\.\w", str(refused.value))
    assert 'torch.save(model.state_dict(), "best-weights.pth")' in str(refused.value)


def test_a_module_beside_the_weights_is_passed_over(tmp_path):
    """As Lightning saves a loss among the hyperparameters."""
    state, _ = states()
    torch.save({"state_dict": state, "hyper_parameters": {"loss": nn.CrossEntropyLoss()}}, tmp_path / "w.ckpt")
    assert torch.equal(choose(network(), tmp_path / "w.ckpt", 3).state["0.weight"], state["0.weight"])
    with pytest.raises(ModelError, match="do not fit this network"):
        choose(nn.Sequential(nn.Conv2d(3, 9, 3)), tmp_path / "w.ckpt", 3)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_model_is_named_as_such(tmp_path):
    torch.jit.save(torch.jit.script(network()), tmp_path / "model.pt")
    with pytest.raises(ModelError, match="is a TorchScript model") as refused:
        choose(network(), tmp_path / "model.pt", 3)
    assert 'torch.save(torch.jit.load("model.pt").state_dict(), "model-weights.pth")' in str(refused.value)


def test_averaged_parameters_take_the_buffers_of_the_weights_beside_them(tmp_path):
    raw = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    raw(torch.randn(8, 3, 1, 1))
    averaged = {name: value + 1.0 for name, value in raw.named_parameters()}
    torch.save({"model": raw.state_dict(), "ema": {"decay": 0.9, "shadow": averaged}}, tmp_path / "w.pth")
    chosen = choose(copy.deepcopy(raw), tmp_path / "w.pth", 3)
    assert torch.equal(chosen.state["0.weight"], averaged["0.weight"])
    assert torch.equal(chosen.state["1.running_mean"], raw[1].running_mean) and "averaged" in chosen.warning


@pytest.mark.parametrize(
    "averages",
    [{"shadow_params": [torch.ones(2)], "collected_params": None}, {"0weight": torch.ones(4), "0bias": torch.ones(4)}],
)
def test_averages_that_do_not_fit_are_named(tmp_path, averages):
    torch.save({"model": network().state_dict(), "ema": averages}, tmp_path / "w.pth")
    chosen = choose(network(), tmp_path / "w.pth", 3)
    assert "averaged weights under ema" in chosen.warning and "do not fit" in chosen.warning


@torch.no_grad()
def _averaged_model(inner: nn.Module) -> nn.Module:
    averaged = torch.optim.swa_utils.AveragedModel(inner)
    averaged.update_parameters(inner)
    for parameter in inner.parameters():
        parameter.add_(1.0)
    averaged.update_parameters(inner)
    return averaged


def test_a_file_of_pytorch_s_averaged_model_is_an_average(tmp_path):
    averaged = _averaged_model(network())
    torch.save(averaged.state_dict(), tmp_path / "w.pth")
    chosen = choose(network(), tmp_path / "w.pth", 3)
    assert torch.equal(chosen.state["0.weight"], averaged.module[0].weight)
    assert chosen.warning == "The averaged weights (module) of the file were taken: it has no others that fit."
    assert choose(network(), tmp_path / "w.pth", 3, key="module").warning is None


@pytest.mark.parametrize("name", ["net_b", "nested.net_b"])
def test_pytorch_s_averaged_model_is_known_by_its_counter_whatever_its_name(tmp_path, name):
    """Without a word such as ema or swa in it, and beside the weights that it averages."""
    raw, averaged = network(), _averaged_model(network())
    content = {"net_a": raw.state_dict(), "net_b": averaged.state_dict()}
    torch.save({"nested": content} if "." in name else content, tmp_path / "w.pth")
    chosen = choose(network(), tmp_path / "w.pth", 3)
    assert torch.equal(chosen.state["0.weight"], averaged.module[0].weight)
    assert chosen.label == f"{name}.module"
    assert chosen.warning.startswith(f"The averaged weights ({name}.module) of the file were taken; key: ")


def test_an_averaged_model_among_the_tensors_of_one_state_dict(tmp_path):
    """As a Lightning module saves its parts."""
    raw, averaged = network(), _averaged_model(network())
    state = {**prefixed(raw.state_dict(), "net."), **prefixed(averaged.state_dict(), "slow.")}
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    chosen = choose(network(), tmp_path / "w.ckpt", 3)
    assert torch.equal(chosen.state["0.weight"], averaged.module[0].weight) and chosen.over == "state_dict.net"


def test_an_averaged_model_that_does_not_fit_is_named_without_its_counter(tmp_path):
    averaged = _averaged_model(nn.Sequential(nn.Conv2d(3, 9, 3)))
    torch.save({"model": network().state_dict(), "other": averaged.state_dict()}, tmp_path / "w.pth")
    chosen = choose(network(), tmp_path / "w.pth", 3)
    assert "averaged weights under other.module, which do not fit" in chosen.warning
