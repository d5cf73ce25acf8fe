"""Every classifier of timm."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import timm
from huggingface_hub import logging as hub_log
from huggingface_hub import try_to_load_from_cache
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn

from edgekd.models.hub_folder import timm_input
from edgekd.models.sources import ModelSource
from edgekd.models.trained_input import TrainedInput


def names() -> tuple[str, ...]:
    return tuple(timm.list_models())


def build(name: str, *, num_classes: int, pretrained: bool = False, **arguments: Any) -> nn.Module:
    with _quiet_hub():
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **arguments)
    return model


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Without the hub's two lines for each attempt of a download: what fails in the end is raised, and says why.

    A verbosity other than the usual one (HF_HUB_VERBOSITY=info) stays.
    """
    before = hub_log.get_verbosity()
    if before == logging.WARNING:
        hub_log.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hub_log.set_verbosity(before)


def published_classes(name: str) -> int:
    """Raises ValueError where there are no published weights."""
    published = timm.get_pretrained_cfg(name)
    if published is None or not published.has_weights:
        raise ValueError(f"there are no published weights of timm/{name}")
    return int(published.num_classes)


def published_input(name: str) -> TrainedInput:
    published = timm.get_pretrained_cfg(name)
    return TrainedInput() if published is None else timm_input(asdict(published))


def class_names(name: str) -> tuple[str, ...]:
    """Those of ImageNet and of its subsets and supersets in timm."""
    published = timm.get_pretrained_cfg(name)
    subset = None if published is None else infer_imagenet_subset(vars(published))
    if not subset:
        return ()
    known: Any = ImageNetInfo(subset)
    return tuple(known.index_to_description(index).partition(",")[0] for index in range(known.num_classes()))


def bring(name: str) -> str:
    published = timm.get_pretrained_cfg(name)
    origin = published.hf_hub_id if published is not None else None
    if not origin:
        return "download a file of its weights elsewhere, and set checkpoint to it instead of pretrained"
    return (
        f"download config.json and model.safetensors of https://huggingface.co/{origin} elsewhere into one folder, and "
        "set checkpoint to the folder instead of pretrained"
    )


def here(name: str) -> bool:
    published = timm.get_pretrained_cfg(name)
    if published is None or published.hf_hub_id is None:
        return False
    files = (published.hf_hub_filename or "model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(published.hf_hub_id, file), str) for file in files)


# By the beginning of a name: the first convolution, and the max-pool behind it.
_STEMS = (
    (re.compile(r"(tf_)?(mobilenetv[1-4]|efficientnet|mnasnet_|lcnet_|ghostnet)"), ("conv_stem", None)),
    # The networks of CLIP, and those with one more layer at the end, have other stems.
    (re.compile(r"(wide_resnet|resnext|resnet)\d+(_(?!clip|mlp)|$)"), ("conv1", "maxpool")),
    (re.compile(r"(resnext|resnet)\d+[cdst](_|$)"), ("conv1.0", "maxpool")),
)


def stem(name: str) -> tuple[str, str | None] | None:
    return next((paths for family, paths in _STEMS if family.match(name)), None)


_LOADING = frozenset(
    "checkpoint_path pretrained pretrained_cfg pretrained_cfg_overlay pretrained_strict pretrained_filter_fn "
    "pretrained_model_args cache_dir model_cls model_cfg".split()
)
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
