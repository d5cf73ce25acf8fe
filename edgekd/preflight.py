"""What can be known of a recipe's networks before one of them is trained."""

from __future__ import annotations

from torch import nn

from edgekd import plugins, schemes
from edgekd.devices import profiles
from edgekd.distillation.graft import graft
from edgekd.distillation.stage import networks_for
from edgekd.distillation.terms import build_terms
from edgekd.errors import ExportError, ModelError
from edgekd.export.onnx import graph_of
from edgekd.models.architecture import Architecture
from edgekd.models.code import code_of
from edgekd.models.cost import cost
from edgekd.pruning import stage as pruning
from edgekd.quantization import stage as quantization
from edgekd.quantization.placement import insert, refuse_quantized
from edgekd.recipe.settings import ModelSettings, PruneSettings, RecipeSettings
from edgekd.store.artifacts import Dataset
from edgekd.training import stages as training


def check_networks(recipe: RecipeSettings, data: Dataset) -> None:
    """Build all networks, untrained: what is wrong with one must not cost another's training.

    Raises:
        ModelError: arguments, weights or classes do not fit, one is quantized already, the student cannot be
            pruned or quantized as asked, or a network of the user's own does not answer or export as it must.
        UsageError: an objective names a layer that is not there, or layers that it cannot compare.
        DataError: too few images to calibrate on.
    """
    said = recipe.distill.scheme
    sections = [recipe.student, *([recipe.teacher] if recipe.teacher is not None else [])]
    own = {
        (model.model, repr(model.arguments)): model
        for model in (*sections, *schemes.models_in(schemes.parameters_of(said)))
        if code_of(model.model) is not None
    }
    for model in own.values():
        _check_own_export(model, data, recipe.export.opset)
    for model in schemes.models_over(said, data.classes):
        _built(model, data)
    teacher = _built(recipe.teacher, data)[0] if recipe.teacher is not None else None
    scheme = plugins.load("scheme", said.name)
    if hasattr(scheme, "check_networks"):
        scheme.check_networks(recipe, schemes.parameters_of(said), teacher, data)
    student, architecture = _built(recipe.student, data)
    if teacher is not None and not getattr(scheme, "ASSISTED", False):  # which never learns from it
        graft(student, teacher, architecture, recipe.distill.objective, training.preprocessing_of(data).image_size)
        build_terms(recipe.distill.objective, networks_for(student, teacher, data))
    _check_later_links(recipe, student, teacher, data)


def channel_multiple(settings: PruneSettings) -> int:
    """What widths are rounded to."""
    return settings.multiple or profiles.find(settings.device).channel_multiple


def _check_later_links(recipe: RecipeSettings, student: nn.Module, teacher: nn.Module | None, data: Dataset) -> None:
    size, guide = training.preprocessing_of(data).image_size, teacher or student
    if recipe.quantize is not None:
        counts = data.manifest.details["counts"]
        quantization.check(student, recipe.quantize.calibration_images, counts["train"], size)
        if recipe.quantize.objective is not None:
            build_terms(recipe.quantize.objective, networks_for(insert(student).model, guide, data))
    if recipe.prune is not None:
        if recipe.prune.objective is not None:
            build_terms(recipe.prune.objective, networks_for(student, guide, data))
        pruning.check(student, recipe.prune.target, channel_multiple(recipe.prune), size)


def _check_own_export(model: ModelSettings, data: Dataset, opset: int) -> None:
    """Published networks are known to export; of a user's own nobody knows before it is tried."""
    untrained = model.model_copy(update={"pretrained": False, "checkpoint": None})
    network, size = training.initial(untrained, data)[0], training.preprocessing_of(data).image_size
    try:
        graph_of(network.eval(), size, opset)
    except ExportError as error:
        raise ModelError(
            f"the network of {model.model} cannot be exported to ONNX",
            found=error.found or error.what,
            hint="forward() must not branch on the values in a tensor, nor use operations that ONNX lacks",
        ) from error


def _built(model: ModelSettings, data: Dataset) -> tuple[nn.Module, Architecture]:
    network, architecture = training.initial(model.model_copy(update={"pretrained": False}), data)
    refuse_quantized(network, model.model)
    cost(network, training.preprocessing_of(data).image_size)
    return network, architecture
