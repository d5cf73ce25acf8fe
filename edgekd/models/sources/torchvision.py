"""Every classifier of torchvision."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.sources import ModelSource
from edgekd.models.trained_input import TrainedInput
from edgekd.models.weights import put_state

_INTERNAL = frozenset({"kwargs", "args", "x", "weights", "progress", "num_classes", "arch", "block", "layers", "self"})
_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def names() -> tuple[str, ...]:
    return tuple(torchvision.models.list_models(module=torchvision.models))


def build(name: str, *, num_classes: int, pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Raises ModelError where an argument is unknown, or the published weights do not fit the arguments."""
    if name in _AUXILIARY_HEADS:
        # Their auxiliary classifiers change the output of forward() in training mode.
        arguments = {"aux_logits": False, **arguments}
    # Some builders accept any keyword, so that a typo would silently build the wrong network.
    _check_arguments(name, arguments)
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **arguments)
    if pretrained:
        _load_published(model, name, num_classes)
    return model


def published_classes(name: str) -> int:
    return len(torchvision.models.get_model_weights(name).DEFAULT.meta["categories"])


def class_names(name: str) -> tuple[str, ...]:
    return tuple(torchvision.models.get_model_weights(name).DEFAULT.meta["categories"])


def _check_arguments(name: str, arguments: dict[str, Any]) -> None:
    builder = torchvision.models.get_model_builder(name)
    module = sys.modules[builder.__module__]
    family = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    callables = [value for value in (builder, *family) if inspect.isfunction(value) or _is_network(value)]
    known = {parameter for value in callables for parameter in inspect.signature(value).parameters}
    if unknown := sorted(set(arguments) - known):
        raise ModelError(f"torchvision/{name} takes no argument {unknown[0]!r}", allowed=sorted(known - _INTERNAL))


def _is_network(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, nn.Module)


def _load_published(model: nn.Module, name: str, num_classes: int) -> None:
    """Load published weights, except the last layer where the number of classes differs."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    published = weights.get_state_dict(progress=False, check_hash=True)
    own = model.state_dict()
    fitting = {key: value for key, value in published.items() if key in own and own[key].shape == value.shape}
    left_out = [key for key in published if key not in fitting and own.get(key) is not None]
    if any(own[key].shape[0] != num_classes for key in left_out):
        raise ModelError(f"the published weights of torchvision/{name} do not fit these arguments", found=left_out)
    put_state(model, fitting)


def published_input(name: str) -> TrainedInput:
    seen = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    (side,), (scaled,) = seen.crop_size, seen.resize_size
    interpolation = seen.interpolation.value
    return TrainedInput(
        (side, side),
        tuple(seen.mean),
        tuple(seen.std),
        interpolation if interpolation in ("bilinear", "bicubic") else None,
        min(1.0, side / scaled),
    )


def bring(name: str) -> str:
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    return f"download {url} elsewhere, and put it at {_place(url)}"


def here(name: str) -> bool:
    return _place(torchvision.models.get_model_weights(name).DEFAULT.url).is_file()


def _place(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


# By the beginning of a name: the first convolution, and the max-pool behind it.
_STEMS = (
    (re.compile(r"mobilenet_v2|mobilenet_v3|efficientnet_"), ("features.0.0", None)),
    (re.compile(r"shufflenet_v2"), ("conv1.0", "maxpool")),
    (re.compile(r"squeezenet"), ("features.0", "features.2")),
    (re.compile(r"mnasnet\d"), ("layers.0", None)),
    (re.compile(r"(wide_resnet|resnext|resnet)\d"), ("conv1", "maxpool")),
)


def stem(name: str) -> tuple[str, str | None] | None:
    return next((paths for family, paths in _STEMS if family.match(name)), None)


_LOADING = frozenset({"weights", "weights_backbone", "pretrained", "pretrained_backbone", "progress"})
MODELS = ModelSource(
    names=names,
    build=build,
    published_classes=published_classes,
    class_names=class_names,
    loading=_LOADING,
    bring=bring,
    published_input=published_input,
    here=here,
    stem=stem,
)
