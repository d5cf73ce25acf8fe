"""How far networks can be pruned: the smallest fraction of the MACs that any of their widths has."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from _students import Part

from edgekd.errors import ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.cost import cost
from edgekd.pruning.channels import Channels
from edgekd.pruning.meters import Counted
from edgekd.pruning.search import narrowest
from edgekd.runtime.preprocess import InputShape
from edgekd.stages.reparameterize import as_compressed

MULTIPLES = (8, 16)
_224 = (
    "torchvision/mobilenet_v2",
    "torchvision/mobilenet_v3_small",
    "torchvision/mobilenet_v3_large",
    "torchvision/mnasnet1_0",
    "torchvision/squeezenet1_1",
    "torchvision/efficientnet_b0",
    "torchvision/regnet_y_400mf",
    "torchvision/resnet18",
    "torchvision/resnet50",
    "torchvision/densenet121",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/shufflenet_v2_x1_0",
    "torchvision/shufflenet_v2_x1_5",
    "torchvision/shufflenet_v2_x2_0",
    "timm/ghostnet_100",
    "timm/mobilenetv4_conv_small",
    "timm/repvgg_a0",
    "timm/mobileone_s0",
    "timm/repghostnet_100",
    "timm/fastvit_t8",
)
_32 = ("cifar/resnet20", "cifar/resnet56", "cifar/resnet32x4", "cifar/resnet9")


def measure(arguments: argparse.Namespace) -> Part:
    rows = [_of(model, side) for side, models in ((224, _224), (32, _32)) for model in models]
    return Part(rows, _table(rows), note="1,000 classes at 224x224, 10 at 32x32; branches folded where there are some")


def _of(model: str, side: int) -> dict[str, Any]:
    shape = InputShape(3, side, side)
    network = as_compressed(build(Architecture(model=model, num_classes=1000 if side == 224 else 10)).eval())
    row: dict[str, Any] = {"model": model, "macs": cost(network, shape)["macs"]}
    for multiple in MULTIPLES:
        try:
            channels = Channels.of(network, shape, multiple)
            row[f"multiple {multiple}"] = narrowest(channels, Counted("macs"))
            row[f"whole {multiple}"] = dict(channels.whole)
        except ModelError as error:
            row[f"refused {multiple}"] = str(error)
    return row


def _table(rows: Sequence[dict[str, Any]]) -> str:
    columns = " | ".join(f"widths of {multiple}" for multiple in MULTIPLES)
    lines = [f"| | MACs, millions | {columns} | layers left whole |", "|---|---|---|---|---|"]
    for row in rows:
        cells = [
            f"{row[f'multiple {multiple}']:.2f}" if f"multiple {multiple}" in row else row[f"refused {multiple}"]
            for multiple in MULTIPLES
        ]
        whole = len(row.get(f"whole {MULTIPLES[0]}", {}))
        lines.append(f"| {row['model']} | {row['macs'] / 1e6:,.0f} | {' | '.join(cells)} | {whole} |")
    return "\n".join(lines)
