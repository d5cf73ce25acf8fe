"""Stand-ins for what needs a GPU: a CUDA driver over malloc, and TensorRT's module with one version's real names.

The names are those of the real module (data/tensorrt_api): what a version lacks is an AttributeError here too. What
stands behind them is not TensorRT: it records what it is asked for, and its engines answer with each channel's mean, of
several inputs added up.
"""

from __future__ import annotations

import ctypes
import json
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

API = {
    file.stem: json.loads(file.read_text())["names"]
    for file in sorted((Path(__file__).parent / "data" / "tensorrt_api").glob("*.json"))
}

DRIVER = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
static int live, current;
int live_handles(void) { return live; }
static int take(void **out, size_t n) {
    if (!current) return 201;
    if (n > (1u << 30)) return 2;
    *out = malloc(n); live++;
    return 0;
}
static int give(void *p) { if (!current) return 201; free(p); live--; return 0; }
int cuInit(unsigned f) { return f; }
int cuDeviceGetCount(int *n) { *n = GPUS; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return i < GPUS ? 0 : 101; }
int cuDeviceGetName(char *text, int n, int d) { strncpy(text, NAME, n); return d < GPUS ? 0 : 101; }
int cuDeviceGetAttribute(int *v, int which, int d) {
    *v = which == 75 ? MAJOR : MINOR;
    return d < GPUS && (which == 75 || which == 76) ? 0 : 1;
}
int cuDriverGetVersion(int *v) { *v = 12060; return 0; }
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = (void *)(intptr_t)(d + 7); return 0; }
int cuCtxSetCurrent(void *c) { current = c == (void *)7; return current ? 0 : 201; }
int cuStreamCreate(void **s, unsigned f) { return f == 1 ? take(s, 1) : 1; }
int cuStreamSynchronize(void *s) { return s ? 0 : 400; }
int cuStreamDestroy_v2(void *s) { return give(s); }
int cuMemAlloc_v2(uint64_t *p, size_t n) { return take((void **)p, n); }
int cuMemFree_v2(uint64_t p) { return give((void *)p); }
int cuMemHostAlloc(void **p, size_t n, unsigned f) { return n > (1u << 20) ? take(p, 1) : take(p, n); }
int cuMemFreeHost(void *p) { return give(p); }
int cuMemcpyHtoDAsync_v2(uint64_t d, const void *h, size_t n, void *s) { memcpy((void *)d, h, n); return s ? 0 : 400; }
int cuMemcpyDtoHAsync_v2(void *h, uint64_t d, size_t n, void *s) { memcpy(h, (void *)d, n); return s ? 0 : 400; }
int cuGetErrorString(int code, const char **text) {
    *text = code == 2 ? "out of memory" : NULL;
    return *text ? 0 : 1;
}
"""

# A graph file that begins so is refused by the parser, or by the builder.
UNREADABLE, UNBUILDABLE = b"unreadable", b"unbuildable"
SHAPE = (-1, 3, 4, 4)


def namespace(version: str) -> ModuleType:
    """TensorRT's module as far as the builder and the session need it; `asked` records what was asked for."""
    api = API[version]
    trt = ModuleType("tensorrt")
    trt.__version__ = version
    trt.asked = asked = {
        "creation": None,
        "flags": [],
        "cleared": [],
        "profile": None,
        "pools": {},
        "timings": [],
        "builds": 0,
    }
    for name, kinds in api.items():
        if "enum" in kinds:
            setattr(trt, name, IntEnum(name, {member: number for number, member in enumerate(sorted(kinds["enum"]))}))

    def instance(owner: str, **behaviour: object) -> SimpleNamespace:
        """An object of a real class with its real names only."""
        real = set(api[owner]["class"])
        return SimpleNamespace(**{name: value for name, value in behaviour.items() if name in real})

    trt.init_libnvinfer_plugins = lambda log, space: True
    trt.ILogger = type("ILogger", (), {"ERROR": "error", "INTERNAL_ERROR": "internal", "WARNING": "warning"})

    def create_network(flags: int) -> SimpleNamespace:
        kind = trt.NetworkDefinitionCreationFlag
        asked["creation"] = [flag.name for flag in kind if flags & 1 << int(flag)]
        tensor = instance("ITensor", name="input", shape=SHAPE)
        return instance("INetworkDefinition", num_inputs=1, get_input=lambda index: tensor, name=b"")

    def set_timing_cache(timing_cache: SimpleNamespace, ignore_mismatch: bool) -> bool:
        asked["timings"].append(timing_cache.content)
        return timing_cache.content in (b"", b"timings") and not ignore_mismatch

    def create_timing_cache(content: bytes) -> SimpleNamespace | None:
        if content == b"damaged":
            return None
        made = instance("ITimingCache", serialize=lambda: b"timings")
        made.content = content
        return made

    def add_optimization_profile(profile: SimpleNamespace) -> int:
        return 0 if asked["profile"] else -1

    def create_builder_config() -> SimpleNamespace:
        return instance(
            "IBuilderConfig",
            set_flag=lambda flag: asked["flags"].append(flag.name),
            clear_flag=lambda flag: asked["cleared"].append(flag.name),
            set_memory_pool_limit=lambda pool, size: asked["pools"].update({pool.name: size}),
            add_optimization_profile=add_optimization_profile,
            create_timing_cache=create_timing_cache,
            set_timing_cache=set_timing_cache,
            get_timing_cache=lambda: create_timing_cache(b""),
        )

    def create_optimization_profile() -> SimpleNamespace:
        return instance("IOptimizationProfile", set_shape=lambda *given: asked.update(profile=given))

    def new_builder(log: object) -> SimpleNamespace:
        def build_serialized_network(network: SimpleNamespace, config: SimpleNamespace) -> bytes | None:
            asked["builds"] += 1
            if network.name.startswith(UNBUILDABLE):
                log.log(trt.ILogger.ERROR, "no implementation found")
                return None
            return json.dumps({"version": version, "batches": [shape[0] for shape in asked["profile"][1:]]}).encode()

        return instance(
            "Builder",
            create_network=create_network,
            create_builder_config=create_builder_config,
            create_optimization_profile=create_optimization_profile,
            build_serialized_network=build_serialized_network,
        )

    def new_parser(network: SimpleNamespace, log: object) -> SimpleNamespace:
        def parse_from_file(path: str) -> bool:
            network.name = Path(path).read_bytes()
            return not network.name.startswith(UNREADABLE)

        return instance("OnnxParser", parse_from_file=parse_from_file, num_errors=2, get_error=get_error)

    def get_error(index: int) -> SimpleNamespace:
        return instance(
            "ParserError",
            node=lambda: 7 + index,
            desc=lambda: "no importer registered for op: QLinearConv",
            node_name=lambda: f"/conv{index}",
            node_operator=lambda: "QLinearConv",
        )

    trt.Builder, trt.OnnxParser = new_builder, new_parser
    trt.Runtime = lambda log: instance("Runtime", deserialize_cuda_engine=lambda plan: _engine(trt, instance, plan))
    return trt


def _engine(trt: ModuleType, instance: object, plan: bytes) -> SimpleNamespace | None:
    try:
        made = json.loads(plan)
        least, best, most = made["batches"]
    except ValueError:
        return None
    inputs = made.get("inputs", ["input"])
    shapes = {**dict.fromkeys(inputs, SHAPE), "logits": (-1, 3)}
    modes = {**dict.fromkeys(inputs, trt.TensorIOMode.INPUT), "logits": trt.TensorIOMode.OUTPUT}
    return instance(
        "ICudaEngine",
        num_io_tensors=len(shapes),
        get_tensor_name=lambda index: list(shapes)[index],
        get_tensor_mode=lambda name: modes[name],
        get_tensor_shape=lambda name: shapes[name],
        get_tensor_dtype=lambda name: trt.DataType.FLOAT,
        get_tensor_format=lambda name: trt.TensorFormat.LINEAR,
        get_tensor_profile_shape=lambda name, index: [(size, *SHAPE[1:]) for size in (least, best, most)],
        create_execution_context=lambda: _context(instance, most, inputs),
    )


def _context(instance: object, most: int, inputs: list[str]) -> SimpleNamespace:
    state: dict = {"addresses": {}}

    def set_input_shape(name: str, shape: tuple[int, ...]) -> bool:
        state["batch"] = shape[0]
        return shape[0] <= most

    def execute_async_v3(stream: int) -> bool:
        def at(name: str, shape: tuple[int, ...]) -> np.ndarray:
            pointer = ctypes.cast(state["addresses"][name], ctypes.POINTER(ctypes.c_float))
            return np.ctypeslib.as_array(pointer, shape)

        means = [at(name, (state["batch"], *SHAPE[1:])).mean((2, 3)) for name in inputs]
        at("logits", (state["batch"], 3))[...] = np.sum(means, 0)
        return stream != 0

    return instance(
        "IExecutionContext",
        set_input_shape=set_input_shape,
        get_tensor_shape=lambda name: (state["batch"], 3),
        set_tensor_address=lambda name, address: state["addresses"].update({name: address}),
        execute_async_v3=execute_async_v3,
    )
