"""Checks without TensorRT whether its versions can parse a graph, with a reason for each refusal."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import chain
from pathlib import Path

import onnx
from onnx import TensorProto

from edgekd.errors import ExportError, UsageError
from edgekd.export._quantized_rules import DEQUANTIZE, NODE_RULES, QUANTIZE, Finding, Target, channels
from edgekd.export._scopes import Scope, expanded, of_onnx, opset_of, scopes, title
from edgekd.export._types import tensor_types
from edgekd.runtime import backends

__all__ = ["JETPACKS", "VERSIONS", "Finding", "Verdict", "check", "has_int8", "is_offered", "read"]

# Checked by default.
VERSIONS: tuple[str, ...] = ("8.6", "10.3", "10.13", "10.16", "11.4")
# The JetPack release that each version comes with.
JETPACKS = {
    "8.2": "JetPack 4.6",
    "8.5": "JetPack 5.1",
    "8.6": "JetPack 6.0",
    "10.3": "JetPack 6.1, 6.2",
    "10.13": "JetPack 7.0, 7.1",
    "10.16": "JetPack 7.2",
    "11.4": "workstation",
}

_MAJORS = (8, 10, 11)
# The newest opset that TensorRT 8 parses, and the newest that is documented for 10 and 11.
_CEILING_8, _KNOWN_10 = 17, 20
_INT8_OPERATORS = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"})
_DecodeError: type[Exception] = import_module("google.protobuf.message").DecodeError


@dataclass(frozen=True)
class Verdict:
    """Whether one TensorRT version accepts a graph, and why not.

    Attributes:
        legal: whether no finding is an error.
        note: the source of the verdict.
    """

    version: str
    legal: bool
    findings: tuple[Finding, ...]
    note: str


def is_offered(activations: str) -> bool:
    """Whether graphs with these activations are meant for TensorRT; see Backend."""
    return activations in backends.find("tensorrt").activations(None)


def check(graph: onnx.ModelProto, version: str) -> Verdict:
    """Check a graph against the rules of one TensorRT version.

    Args:
        graph: the graph.
        version: "MAJOR.MINOR" or "MAJOR.MINOR.PATCH", from 8.2 on.

    Raises:
        UsageError: not a version, one before 8.2, or an unknown major version.
        ExportError: its local functions cannot be inlined.
    """
    numbers = _numbers(version)
    column = max(known for known in _columns() if known <= numbers)
    target = Target(version, numbers[0], opset_of(graph) or 0)
    findings = [*_opset(target), *_functions(graph, target), *_inputs(graph, target)]
    inlined = expanded(graph)
    findings += tensor_types(inlined, numbers)
    for scope in scopes(inlined.graph):
        for node in scope.graph.node:
            findings += _node(scope, node, target, column)
    legal = all(finding.level != "error" for finding in findings)
    return Verdict(version, legal, tuple(findings), _note(numbers, column))


def read(path: Path) -> onnx.ModelProto:
    """Read a graph, with its external data if it has any.

    Raises:
        ExportError: the file does not exist, is not ONNX, or its data file is missing.
    """
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except FileNotFoundError:
        raise ExportError(f"{path} does not exist", hint="pass an .onnx file or a bundle's folder") from None
    except (OSError, _DecodeError) as error:
        raise ExportError(f"{path} cannot be read as ONNX", found=str(error).partition("\n")[0]) from None
    # Protocol Buffers read an empty file, and many short ones, as an empty message.
    if not model.ir_version or not model.HasField("graph"):
        raise ExportError(f"{path} cannot be read as ONNX", found="no graph in it")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ExportError(
            f"the data file of {path} cannot be read",
            found=str(error).partition("\n")[0],
            hint="keep the .data file beside the graph, as it was written",
        ) from None
    return model


def has_int8(graph: onnx.ModelProto) -> bool:
    """Whether the graph has quantized operations."""
    names = {QUANTIZE, DEQUANTIZE, *_INT8_OPERATORS}
    return any(node.op_type in names for scope in scopes(graph.graph) for node in scope.graph.node)


def _numbers(version: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)\.(\d+)(\.\d+)?", version)
    numbers = (int(match[1]), int(match[2])) if match else (0, 0)
    if numbers < _columns()[0] or numbers[0] not in _MAJORS:
        majors = ", ".join(f"{major}.x" for major in _MAJORS)
        raise UsageError(
            f"unknown TensorRT version {version!r}",
            allowed=f"MAJOR.MINOR or MAJOR.MINOR.PATCH of {majors}, from 8.2 on; e.g. {', '.join(VERSIONS)}",
        )
    return numbers


@cache
def _importers() -> dict[str, dict[tuple[int, int], bool]]:
    """For each operator, whether each parser version whose source was read imports it."""
    with Path(__file__).with_name("tensorrt_importers.csv").open(newline="") as stream:
        return {
            row.pop("op"): {_column(name): value == "1" for name, value in row.items()}
            for row in csv.DictReader(stream)
        }


def _column(name: str) -> tuple[int, int]:
    major, minor = name.split(".")
    return int(major), int(minor)


@cache
def _columns() -> tuple[tuple[int, int], ...]:
    return tuple(sorted(next(iter(_importers().values()))))


def _note(numbers: tuple[int, int], column: tuple[int, int]) -> str:
    read_version = ".".join(map(str, column))
    if numbers == column:
        return f"operators as in the source of TensorRT {read_version}'s parser"
    return (
        f"operators as in the source of TensorRT {read_version}'s parser, carried forward: "
        "the operator table of this version was not read"
    )


def _opset(target: Target) -> Iterator[Finding]:
    if target.opset == 0:
        yield Finding("error", "opset", "", "the model does not declare its opset", "export it again")
    elif target.major == 8 and target.opset > _CEILING_8:
        message = f"opset {target.opset}: the parser of TensorRT 8 reads up to {_CEILING_8}"
        yield Finding("error", "opset", "", message, "edgekd.export.opset.lower writes it in opset 17")
    elif target.opset > _KNOWN_10:
        message = f"opset {target.opset}: TensorRT is documented to parse opsets only up to {_KNOWN_10}"
        yield Finding("warning", "opset", "", message, f"export with opset {_KNOWN_10}")


def _functions(graph: onnx.ModelProto, target: Target) -> Iterator[Finding]:
    if graph.functions and target.major == 8:
        message = "the model has local functions, which TensorRT 8 does not import"
        yield Finding("error", "functions", "", message, "inline them with onnx.inliner.inline_local_functions")


def _inputs(graph: onnx.ModelProto, target: Target) -> Iterator[Finding]:
    constants = {tensor.name for tensor in graph.graph.initializer}
    for value in graph.graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        where = f"{value.name} (input)"
        if tensor.elem_type == TensorProto.DOUBLE:
            yield Finding("warning", "input-type", where, "double: TensorRT computes it in float32", "feed float32")
        elif tensor.elem_type == TensorProto.INT64 and target.major == 8:
            yield Finding("warning", "input-type", where, "int64: TensorRT 8 computes it in int32", "feed int32")
        if any(not dim.HasField("dim_value") for dim in tensor.shape.dim[1:]):
            message = "a size other than the batch is dynamic: building an engine needs an optimization profile for it"
            yield Finding("warning", "dynamic-shape", where, message, "export with a fixed image size")


def _node(scope: Scope, node: onnx.NodeProto, target: Target, column: tuple[int, int]) -> Iterator[Finding]:
    if not of_onnx(node):
        message = f"{node.domain}.{node.op_type} is not an ONNX operator: TensorRT would need a plugin for it"
        yield Finding("error", "domain", title(node), message, "export with ONNX operators only")
    elif node.op_type in _INT8_OPERATORS:
        message = f"{node.op_type} is not imported by any TensorRT version"
        hint = (
            "quantize with QuantizeLinear and DequantizeLinear around float operators (ONNX Runtime: QuantFormat.QDQ)"
        )
        yield Finding("error", "int8-operator", title(node), message, hint)
    elif not _importers().get(node.op_type, {}).get(column, False):
        yield _not_imported(node, column)
    elif node.op_type in (QUANTIZE, DEQUANTIZE):
        yield from chain.from_iterable(rule(scope, node, target) for rule in NODE_RULES)
    elif node.op_type in ("Conv", "ConvTranspose"):
        yield from channels(scope, node, target)


def _not_imported(node: onnx.NodeProto, column: tuple[int, int]) -> Finding:
    name = ".".join(map(str, column))
    newest = " (the newest version that was read)" if column == _columns()[-1] else ""
    since = [known for known, imported in _importers().get(node.op_type, {}).items() if imported and known > column]
    hint = f"TensorRT {'.'.join(map(str, min(since)))} and later import it" if since else "use other operators"
    message = f"{node.op_type} is not imported by the parser of TensorRT {name}{newest}"
    return Finding("error", "operator", title(node), message, hint)
