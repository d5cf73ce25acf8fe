"""edgekd: distill a large image classifier into a small one that is proven to run on an edge device.

The names below are loaded when they are first used, so that `import edgekd` is cheap everywhere:

    run(recipe, out=None, overrides=())     the whole chain: RunResult
    train, distill, prune, quantize         one link each: Checkpoint
    export_bundle, evaluate                 one link each
    benchmark(target, …)                    latency of a bundle, an ONNX file or an engine
    edgekd.runtime.load(bundle)             the device side
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekd.api import distill, evaluate, export_bundle, prune, quantize, run, train
    from edgekd.bench.measure import benchmark

__all__ = ["benchmark", "distill", "evaluate", "export_bundle", "prune", "quantize", "run", "train"]


def _version() -> str:
    try:
        return metadata.version("edgekd")
    except metadata.PackageNotFoundError:
        # A bare checkout: only the package's metadata has the version.
        return "0+unknown"


__version__ = _version()

_HOMES = {"benchmark": "edgekd.bench.measure"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgekd' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "edgekd.api")), name)
