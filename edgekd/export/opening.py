"""Opens an exported graph for the first time: an engine that crashes on it must not end the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx

from edgekd.errors import ExportError
from edgekd.export._scopes import scopes
from edgekd.runtime.backends import Session, open_reference, reference
from edgekd.runtime.child import child_environment, signal_name

# Of convolutional networks, which engines have seen in every form. A graph of these alone is opened at once: a process
# of its own takes half a second.
_COMMON = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "Gemm",
        "BatchNormalization",
        "Relu",
        "Clip",
        "LeakyRelu",
        "PRelu",
        "Sigmoid",
        "Tanh",
        "Elu",
    }
    | {"HardSigmoid", "HardSwish", "Add", "Sub", "Mul", "Div", "Concat", "Split", "Slice", "Pad", "Reshape", "Flatten"}
    | {"Transpose", "Squeeze", "Unsqueeze", "Identity", "Constant", "Cast", "Shape", "Gather", "Expand", "Resize"}
    | {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "Erf"}
    | {"QuantizeLinear", "DequantizeLinear"}
)
_SECONDS = 300.0
_CODE = """
import sys
from pathlib import Path
import numpy as np
from edgekd.runtime.backends import open_reference
with open_reference(Path(sys.argv[1]), as_written=sys.argv[2] == "as written") as session:
    (given,) = session.inputs
    session.bind(np.zeros([each if isinstance(each, int) else 2 for each in given.shape], given.dtype))()
"""


def open_first(file: Path, *, as_written: bool) -> Session:
    """A session of the reference backend; a graph with uncommon operators is computed in a process of its own before.

    Args:
        file: the graph, with one input.
        as_written: see open_reference().

    Raises:
        ExportError: the engine crashes on the graph, or does not end.
        BackendError: it refuses the graph.
    """
    if not _is_common(file):
        _require_to_survive(file, as_written)
    return open_reference(file, as_written=as_written)


def _is_common(file: Path) -> bool:
    graph = onnx.load(file, load_external_data=False).graph
    return all(node.op_type in _COMMON for scope in scopes(graph) for node in scope.graph.node)


def _require_to_survive(file: Path, as_written: bool) -> None:
    backend = reference()
    engine = f"{backend.title} {backend.version() or ''}".rstrip()
    command = [sys.executable, "-c", _CODE, str(file), "as written" if as_written else "optimized"]
    try:
        code = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            timeout=_SECONDS,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        raise ExportError(
            f"{engine} does not come to an end with this graph", found=f"more than {_SECONDS:g} s for 2 images"
        ) from None
    # What it refuses with an error, it refuses here too, and says why.
    if code < 0:
        raise ExportError(
            f"{engine} crashes on this graph",
            found=f"{signal_name(code)} while it opens or computes it",
            hint="remove this variant from export.variants, or try another version of the engine",
        )
