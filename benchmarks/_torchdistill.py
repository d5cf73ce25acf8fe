"""torchdistill 1.1.5 as its examples use it, one turn per epoch: `PYTHON _torchdistill.py JOB`, see _turns.py.

Imports torch, torchvision and torchdistill only. Its KDLoss takes alpha as the weight of the cross-entropy.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from _pillow import Images
from _turns import Turns
from torch import nn
from torch.utils.data import RandomSampler
from torchdistill.core.distillation import get_distillation_box
from torchdistill.misc.log import MetricLogger, SmoothedValue
from torchvision import models

_CIFAR = Path(__file__).parents[1] / "edgekd" / "models" / "sources" / "cifar.py"
_EMPTY: dict[str, Any] = {"sequential": [], "forward_hook": {"input": [], "output": []}, "wrapper": None}


def network(model: str, classes: int) -> nn.Module:
    """One of the two sources that this comparison needs, without importing edgekd."""
    source, _, name = model.partition("/")
    if source == "torchvision":
        from_torchvision: nn.Module = models.get_model(name, num_classes=classes)
        return from_torchvision
    spec = importlib.util.spec_from_file_location("cifar", _CIFAR)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from_edgekd: nn.Module = module.build(name, num_classes=classes)
    return from_edgekd


def configuration(job: dict[str, Any]) -> dict[str, Any]:
    kd = {
        "key": "KDLoss",
        "kwargs": {
            "student_module_path": ".",
            "student_module_io": "output",
            "teacher_module_path": ".",
            "teacher_module_io": "output",
            "temperature": job["temperature"],
            "alpha": 1.0 - job["kd_weight"],
            "reduction": "batchmean",
        },
    }
    return {
        "num_epochs": job["turns"],
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler},
            "kwargs": {"batch_size": job["batch_size"], "num_workers": job["workers"], "drop_last": True},
        },
        "teacher": {**_EMPTY, "forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {**_EMPTY, "forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {
            "key": "SGD",
            "kwargs": {"lr": job["learning_rate"], "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
            "max_grad_norm": job["clip_norm"],
        },
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": kd, "weight": 1.0}}}},
    }


def loaded(job: dict[str, Any], role: str) -> nn.Module:
    model = network(job["teacher_model" if role == "teacher" else role], job["classes"])
    model.load_state_dict(torch.load(Path(job["folder"]) / f"{role}.pt", weights_only=True))
    return model.to(memory_format=torch.channels_last) if job["channels_last"] else model


def epoch(box: Any, number: int, turns: Turns) -> None:
    """train_one_epoch() of its examples/torchvision/image_classification.py."""
    box.pre_epoch_process(epoch=number)
    logger = MetricLogger(delimiter="  ")
    logger.add_meter("lr", SmoothedValue(window_size=1, fmt="{value}"))
    logger.add_meter("img/s", SmoothedValue(window_size=10, fmt="{value}"))
    for images, targets, extra in logger.log_every(box.train_data_loader, 1000, f"Epoch: [{number}]"):
        start = time.time()
        loss = box.forward_process(images, targets, extra)
        box.post_forward_process(loss=loss)
        logger.update(loss=loss.item(), lr=box.optimizer.param_groups[0]["lr"])
        logger.meters["img/s"].update(len(images) / (time.time() - start))
        turns.step()
    box.post_epoch_process()


def main() -> None:
    turns = Turns()
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    teacher, student = loaded(job, "teacher").eval(), loaded(job, "student")
    data = {"train": Images(Path(job["folder"]) / "data", side=job["side"])}
    box = get_distillation_box(teacher, student, data, configuration(job), torch.device("cpu"), None, False, 1.0)
    version = metadata.version("torchdistill")
    for number in range(job["turns"]):
        turns.next(torch=torch.__version__, tool=version)
        epoch(box, number, turns)
    turns.finish(torch=torch.__version__, tool=version)


if __name__ == "__main__":
    main()
