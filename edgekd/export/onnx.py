"""From a checkpoint to ONNX graphs, each proven against what it was made from on real images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel as OrtGraph
from torch import nn

from edgekd.data.dataset import Dataset
from edgekd.errors import ExportError
from edgekd.export._operators import TRANSLATIONS
from edgekd.export.int8 import GRAPH_NAMES, with_constant_scales
from edgekd.export.numerics import compare, real_inputs
from edgekd.export.onnx_model import OnnxDetails, OnnxModel
from edgekd.export.opset import lower
from edgekd.export.qdq import for_x64, with_float_weights, without_fused_branches
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import ExportSettings
from edgekd.runtime.backends import open_session
from edgekd.runtime.backends.onnxruntime import OrtSession
from edgekd.runtime.preprocess import Floats

VERSION = 2
INPUT, OUTPUT = "input", "logits"
# Both inputs of every addition quantized: what int8-x64 is made of.
_ALL_PAIRS = "all-pairs.onnx"
# The exporter itself leaves this where it is asked for less.
_LOWEST_EXPORTED = 18


def onnx_from_checkpoint(checkpoint: Checkpoint, data: Dataset, settings: ExportSettings, out: Path) -> OnnxModel:
    """The fp32 graph: `input` (batch, 3, S, S) float32, normalised; `logits` (batch, C) float32; dynamic batch.

    Args:
        data: its validation images prove the graph.
        out: an empty folder, which becomes the artifact.

    Raises:
        ExportError: the exporter or the checker refuses the graph, or it computes something else.
    """
    network = checkpoints.load(checkpoint)
    size = checkpoint.details.preprocessing.image_size
    file = _write(graph_of(network, size, settings.opset), out)
    inputs = real_inputs(data)
    report = compare(
        file,
        inputs,
        _answers(network, inputs),
        settings.tolerance_of("fp32"),
        reference="PyTorch in float32",
        heads=_widths(checkpoint),
    )
    return OnnxModel.seal(out, details=_details("fp32", settings.opset, checkpoint), metrics={"numerics": report})


def fp16_from_fp32(model: OnnxModel, data: Dataset, settings: ExportSettings, out: Path) -> OnnxModel:
    """The same graph computing in half precision; inputs and outputs stay float32. Args and Raises as above."""
    half = OrtGraph(convert_float_to_float16(onnx.load(model.graph), keep_io_types=True))
    half.topological_sort()  # the converter appends its casts of the inputs at the end
    file = _write(half.model, out)
    inputs = real_inputs(data)
    expected = open_session(model.graph).bind(inputs)()
    tolerance = settings.tolerance_of("fp16")
    report = compare(file, inputs, expected, tolerance, reference="the fp32 graph", heads=_widths(model))
    return OnnxModel.seal(out, details=_details("fp16", settings.opset, model), metrics={"numerics": report})


def int8_from_checkpoint(checkpoint: Checkpoint, data: Dataset, settings: ExportSettings, out: Path) -> OnnxModel:
    """The int8 graph with explicit, symmetric Q/DQ for TensorRT and OpenVINO. Args and Raises as above.

    Raises:
        ModelError: the checkpoint has no quantizers.
    """
    network = checkpoints.load(checkpoint)
    size = checkpoint.details.preprocessing.image_size
    pairs = graph_of(with_constant_scales(network), size, settings.opset)
    _rename_weights(pairs)
    _write(pairs, out, _ALL_PAIRS)
    file = _write(with_float_weights(without_fused_branches(pairs)), out)
    inputs = real_inputs(data)
    expected = _answers(network, inputs)
    reference = "PyTorch with fake quantization"
    tolerance, heads = settings.tolerance_of("int8"), _widths(checkpoint)
    report = compare(file, inputs, expected, tolerance, reference=reference, heads=heads, as_written=True)
    return OnnxModel.seal(out, details=_details("int8", settings.opset, checkpoint), metrics={"numerics": report})


def x64_from_int8(model: OnnxModel, data: Dataset, settings: ExportSettings, out: Path) -> OnnxModel:
    """The same network with its activations as uint8, for ONNX Runtime on x86. Args and Raises as above."""
    pairs = model.path / _ALL_PAIRS
    file = _write(for_x64(onnx.load(pairs)), out)
    inputs = real_inputs(data)
    expected = OrtSession(pairs, as_written=True).bind(inputs)()
    tolerance = settings.tolerance_of("int8-x64")
    report = compare(file, inputs, expected, tolerance, reference="the int8 graph as written", heads=_widths(model))
    return OnnxModel.seal(out, details=_details("int8", settings.opset, model), metrics={"numerics": report})


@torch.no_grad()
def _answers(network: nn.Module, inputs: Floats) -> Floats:
    answers: Floats = network(torch.from_numpy(inputs)).numpy()
    return answers


def _rename_weights(graph: onnx.ModelProto) -> None:
    """Give int8 weights and their grids the names of the weights in the network."""
    for node in graph.graph.node:
        node.input[:] = [_graph_name(name) for name in node.input]
    for tensor in graph.graph.initializer:
        tensor.name = _graph_name(tensor.name)


def _graph_name(name: str) -> str:
    for held, written in GRAPH_NAMES.items():
        name = name.replace(held, written)
    return name


def graph_of(network: nn.Module, image_size: int, opset: int) -> onnx.ModelProto:
    """Any network as a graph with the input and output of every graph here; Raises ExportError as above."""
    # The exporter would take a batch of 1 for a constant.
    example = torch.zeros(2, 3, image_size, image_size)
    try:
        with warnings.catch_warnings():
            # PyTorch's exporter calls PyTorch's own deprecated functions; nobody here can do anything about it.
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


def _innermost(error: BaseException) -> str:
    """The exporter wraps what went wrong in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


def _write(graph: onnx.ModelProto, out: Path, name: str = "model.onnx") -> Path:
    """Check and save; the exporter's stack traces, paths of this machine among them, do not ship."""
    for holder in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.initializer):
        holder.ClearField("metadata_props")
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError("the exported graph is not valid ONNX", found=str(error).splitlines()[0]) from error
    file = out / name
    onnx.save(graph, file)
    return file


def _details(precision: str, opset: int, source: Checkpoint | OnnxModel) -> OnnxDetails:
    return OnnxDetails(
        precision=precision, opset=opset, input=INPUT, output=OUTPUT, heads=dict(_heads(source)), source=source.digest
    )


def _heads(source: Checkpoint | OnnxModel) -> Mapping[str, tuple[str, ...]]:
    return source.heads if isinstance(source, OnnxModel) else source.details.architecture.heads


def _widths(source: Checkpoint | OnnxModel) -> list[int]:
    return [len(classes) for classes in _heads(source).values()]
