"""Exports networks to ONNX graphs, and verifies graphs on real images.

The conversions to each variant are in variants/.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from edgekd.data.dataset import Dataset
from edgekd.errors import ExportError, summary
from edgekd.export._operators import TRANSLATIONS
from edgekd.export.numerics import Expected, compare, real_inputs
from edgekd.export.onnx_model import OnnxDetails, OnnxModel
from edgekd.export.opset import lower
from edgekd.export.subnormals import flush_subnormals
from edgekd.export.variant import Variant
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.onnx_network import OnnxNetwork
from edgekd.recipe.settings import ExportSettings
from edgekd.runtime.backends import open_reference
from edgekd.runtime.preprocess import Floats, InputShape
from edgekd.store.artifacts import Json

VERSION = 7
INPUT, OUTPUT = "input", "logits"
# The exporter writes this opset where a lower one is requested.
_LOWEST_EXPORTED = 18


def expected_of(
    source: nn.Module | Path, data: Dataset, *, reference: str, as_written: bool = False, quantized: bool = False
) -> Expected:
    """The outputs of a network, or of a graph in the reference backend, for validation images.

    Args:
        source: the network, or a graph's file.
        data: whose validation images are used.
        reference: the name of what computes the outputs, for the report.
        as_written: whether a graph is computed as it is written; see Backend.
        quantized: whether the network, or graph, has int8 quantizers, and may be unstable; see compare().

    Raises:
        BackendError: no engine here can compute the graph.
    """

    @torch.no_grad()
    def computed(inputs: Floats) -> Floats:
        if isinstance(source, Path):
            with open_reference(source, as_written=as_written) as session:
                return session.bind(inputs)()
        logits: Floats = source(torch.from_numpy(inputs)).numpy()
        return logits

    inputs = real_inputs(data)
    again = computed if quantized else None
    return Expected(inputs, computed(inputs), reference, data.multilabel, again)


def seal(
    graph: onnx.ModelProto,
    variant: Variant[Any],
    source: Checkpoint | OnnxModel,
    expected: Expected,
    settings: ExportSettings,
    out: Path,
    *,
    facts: Json | None = None,
) -> OnnxModel:
    """Write a graph without subnormal constants, and verify that it computes the expected outputs.

    Args:
        graph: the graph.
        variant: its export variant.
        source: what the graph was converted from.
        expected: the inputs and outputs to compare with.
        settings: of the export.
        out: an empty folder, which becomes the artifact.
        facts: more of its metrics.

    Raises:
        ExportError: the graph is not valid ONNX, or its outputs differ.
    """
    flushed = flush_subnormals(graph)
    file = write(graph, out)
    if variant.name in settings.tolerance:  # which is the user's own decision
        expected = replace(expected, again=None)
    heads = source.heads if isinstance(source, OnnxModel) else source.details.architecture.heads
    report = compare(
        file,
        expected,
        settings.tolerance_of(variant.name),
        heads=[len(classes) for classes in heads.values()],
        as_written=variant.as_written,
    )
    details = OnnxDetails(
        precision=variant.precision,
        opset=settings.opset,
        input=INPUT,
        output=OUTPUT,
        heads=dict(heads),
        source=source.digest,
    )
    metrics = {"numerics": report, "subnormals": asdict(flushed), "warnings": _warnings(report), **(facts or {})}
    return OnnxModel.seal(out, details=details, metrics=metrics)


def _warnings(numerics: Json) -> list[str]:
    if numerics["unstable"] is None:
        return []
    return [
        f"In int8 this network is unstable: inputs that change by a hundredth of a step move its logits by up to "
        f"{numerics['unstable']:.0%} of the largest, so that engines that round differently answer differently. "
        "Quantization-aware distillation (quantize.mode: qad) usually helps, and so does longer training before it."
    ]


def graph_of(network: nn.Module, shape: InputShape, opset: int) -> onnx.ModelProto:
    """Export a network to ONNX: `input` (batch, C, H, W) to `logits`, with a dynamic batch.

    Args:
        network: in eval mode; an ONNX file keeps its own opset.
        shape: (C, H, W).
        opset: ONNX opset of the graph.

    Raises:
        ExportError: the network cannot be exported, or not in this opset.
    """
    if isinstance(network, OnnxNetwork):
        return network.as_graph()
    # The exporter treats a batch of 1 as a constant.
    example = torch.zeros(2, *shape)
    try:
        with warnings.catch_warnings(), _quiet(logging.getLogger("torch.fx.experimental.symbolic_shapes")):
            # PyTorch's exporter calls deprecated functions of PyTorch itself.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            program = torch.onnx.export(
                network,
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=max(opset, _LOWEST_EXPORTED),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                custom_translation_table=TRANSLATIONS,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError("this network cannot be exported to ONNX", found=_innermost(error)) from error
    if program is None:
        raise ExportError("the ONNX exporter returned nothing")
    graph: onnx.ModelProto = program.model_proto
    return graph if opset >= _LOWEST_EXPORTED else lower(graph, opset)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Without its warnings: where a network cannot be exported, PyTorch prints its graph before it raises the error."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _innermost(error: BaseException) -> str:
    """The first line of the innermost error, which the exporter wraps in long messages."""
    while error.__cause__ is not None:
        error = error.__cause__
    return summary(error)


def write(graph: onnx.ModelProto, out: Path, name: str = "model.onnx") -> Path:
    """Check and save a graph, without the exporter's metadata, which contains stack traces and local paths.

    Raises:
        ExportError: the graph is not valid ONNX.
    """
    for holder in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.initializer):
        holder.ClearField("metadata_props")
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError("the exported graph is not valid ONNX", found=str(error).splitlines()[0]) from error
    file = out / name
    onnx.save(graph, file)
    return file
