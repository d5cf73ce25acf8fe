from __future__ import annotations

import pytest
import torch

from edgekd.export.numerics import real_inputs
from edgekd.export.variants import find
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.recipe.settings import ExportSettings
from edgekd.stages.quantize import calibrate

# The whole chain in tests/cli runs a depthwise network by default.
NETWORKS = [pytest.param("torchvision/mobilenet_v2", marks=pytest.mark.slow), "cifar/resnet8"]


def _folder(place, name):
    (place / name).mkdir()
    return place / name


@pytest.fixture(scope="session", params=NETWORKS)
def int8_graphs(request, small_digits, tmp_path_factory):
    """A calibrated checkpoint with both of its int8 graphs."""
    place = tmp_path_factory.mktemp("int8")
    torch.manual_seed(5)
    arguments = {"width_mult": 0.35} if "mobilenet" in request.param else {}
    architecture = Architecture(
        model=request.param, arguments=arguments, num_classes=10, small_stem="mobilenet" in request.param
    )
    network = build(architecture)
    network.train()(torch.from_numpy(real_inputs(small_digits)))
    student = checkpoints.save(
        network,
        architecture,
        preprocessing=small_digits.details.preprocessing,
        classes=small_digits.classes,
        out=_folder(place, "float"),
    )
    calibrated = calibrate(student, small_digits, 64, _folder(place, "calibrated"))
    settings = ExportSettings()
    int8 = find("int8").export(calibrated, small_digits, settings, _folder(place, "int8"))
    asymmetric = find("int8-asym").export(int8, small_digits, settings, _folder(place, "asymmetric"))
    return student, calibrated, {"int8": int8, "int8-asym": asymmetric}
