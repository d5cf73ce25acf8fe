"""Builds an engine from an ONNX graph, with one code path for TensorRT 8.6 to 11.

The graph determines the precision. Builds are strongly typed, and compute exactly the graph's types, from 10.12 on, and
from 10.0 on for fp16 graphs, in which some operators may be in float32 because they overflow float16. Other builds are
weakly typed and need flags for lower precisions. Flags are looked up by name, because names and numbers differ between
versions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import BackendError

# The flags that a weakly typed build needs to compute a graph in this precision.
PRECISIONS: dict[str, tuple[str, ...]] = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}
_STRONG_FROM, _STRONG_FP16_FROM = (10, 12), (10, 0)
_DYNAMIC = -1


@dataclass(frozen=True)
class Options:
    """Options of the builder.

    Attributes:
        precision: the graph's, a key of PRECISIONS.
        opt_batch, max_batch: the batch size to optimise for, and the largest one; the smallest is 1.
        workspace_mb: memory that a layer may use, in MiB; None: no limit.
    """

    precision: str
    opt_batch: int
    max_batch: int
    workspace_mb: int | None = None


@dataclass(frozen=True)
class Plan:
    """A serialized engine, the kernel timings for the next build, and whether the given timings could not be used."""

    engine: bytes
    timings: bytes
    timings_replaced: bool


def build(trt: Any, log: Any, graph: Path, options: Options, *, timings: bytes = b"") -> Plan:
    """Build one engine, which takes seconds to minutes.

    Args:
        trt: TensorRT's module; requires a GPU.
        log: see edgekd.runtime.backends._tensorrt_engines.new_log.
        graph: an ONNX file with one input, (batch, ...).
        options: of the builder.
        timings: a timing cache of the same device and version, or empty.

    Raises:
        BackendError: TensorRT does not start, or cannot read the graph or build from it.
    """
    trt.init_libnvinfer_plugins(log, "")
    builder = _start(trt, log)
    network = builder.create_network(sum(1 << int(flag) for flag in creation_flags(trt, options.precision)))
    # The parser owns the weights until the engine is built.
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        raise _parse_error(parser, log, graph, trt.__version__)
    config = builder.create_builder_config()
    for flag in builder_flags(trt, options.precision):
        config.set_flag(flag)
    if options.precision == "fp32":
        # TensorRT rounds the inputs of fp32 products to 10 bits unless told not to, in strongly typed builds too.
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    _add_profile(builder, config, network, options, graph)
    replaced = _set_timings(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendError(
            f"TensorRT {trt.__version__} cannot build an engine from {graph}",
            found=log.error,
            hint="free GPU memory, lower the largest batch, or try another variant",
        )
    timing_cache = config.get_timing_cache()
    return Plan(bytes(plan), bytes(timing_cache.serialize()), replaced)


def is_strong(version: str, precision: str) -> bool:
    """Whether this TensorRT version builds a graph strongly typed: the graph alone determines the precision."""
    return _release(version) >= (_STRONG_FP16_FROM if precision == "fp16" else _STRONG_FROM)


def creation_flags(trt: Any, precision: str) -> list[Any]:
    """The flags to create the network with; a flag that a version lacks is its fixed behaviour."""
    names = []
    if is_strong(trt.__version__, precision):
        names.append("STRONGLY_TYPED")
    if _release(trt.__version__)[0] == 8:
        names.append("EXPLICIT_BATCH")
    flags = (getattr(trt.NetworkDefinitionCreationFlag, name, None) for name in names)
    return [flag for flag in flags if flag is not None]


def builder_flags(trt: Any, precision: str) -> list[Any]:
    """The flags for the precisions of a weakly typed build; empty with strong typing.

    Raises:
        BackendError: a weakly typed TensorRT version lacks one of them.
    """
    if is_strong(trt.__version__, precision):
        return []
    flags = {name: getattr(trt.BuilderFlag, name, None) for name in PRECISIONS[precision]}
    if lacking := [name for name, flag in flags.items() if flag is None]:
        raise BackendError(
            f"TensorRT {trt.__version__} cannot build {precision} engines", found=f"no flag {', '.join(lacking)}"
        )
    return list(flags.values())


def _start(trt: Any, log: Any) -> Any:
    try:
        return trt.Builder(log)
    except TypeError:  # the bindings' word for a builder that could not be made
        raise BackendError(
            f"TensorRT {trt.__version__} cannot start its builder",
            found=log.error,
            hint="its libraries must be of one version, complete, and the GPU must have memory left",
        ) from None


def _release(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise BackendError("TensorRT's version is not valid", found=version, allowed="e.g. 10.3.0")
    return int(match[1]), int(match[2])


def _add_profile(builder: Any, config: Any, network: Any, options: Options, graph: Path) -> None:
    if network.num_inputs != 1:
        raise BackendError(f"{graph} takes {network.num_inputs} inputs", allowed="one, (batch, …)")
    tensor = network.get_input(0)
    shape = tuple(int(size) for size in tensor.shape)
    if _DYNAMIC in shape[1:] or not shape:
        raise BackendError(f"{graph} has a dynamic input size", found=shape, allowed="only the batch may be dynamic")
    if shape[0] != _DYNAMIC:
        return
    profile = builder.create_optimization_profile()
    profile.set_shape(tensor.name, *((size, *shape[1:]) for size in (1, options.opt_batch, options.max_batch)))
    if config.add_optimization_profile(profile) < 0:
        raise BackendError(f"TensorRT refuses batches 1, {options.opt_batch}, {options.max_batch} for {graph}")


def _set_timings(config: Any, timings: bytes) -> bool:
    """Whether `timings` were damaged or of another device or version, and were replaced by empty ones."""
    timing_cache = config.create_timing_cache(timings)
    replaced = timing_cache is None or not config.set_timing_cache(timing_cache, False)
    if replaced:
        config.set_timing_cache(config.create_timing_cache(b""), False)
    return replaced


def _parse_error(parser: Any, log: Any, graph: Path, version: str) -> BackendError:
    problems = [_problem(parser.get_error(index)) for index in range(parser.num_errors)]
    opset = ", or export it again with opset 17" if _release(version)[0] == 8 else ""
    return BackendError(
        f"TensorRT {version} cannot read {graph}",
        found="; ".join(problems) or log.error,
        hint=f"edgekd check {graph} --tensorrt {version} lists what it does not support{opset}",
    )


def _problem(problem: Any) -> str:
    """Node, operator and reason; before version 10 the parser reports only the node's number."""
    name, operator = (getattr(problem, each, None) for each in ("node_name", "node_operator"))
    where = f"node {name() if name else ''}".rstrip() if name and name() else f"node {problem.node()}"
    kind = f" ({operator()})" if operator and operator() else ""
    return f"{where}{kind}: {problem.desc()}"
