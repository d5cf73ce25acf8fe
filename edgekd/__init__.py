"""edgekd: distill a large image classifier into a small one that is verified to run on an edge device.

The names below are loaded on first use, so that `import edgekd` is cheap:

    run(recipe, out=None, overrides=())     the whole chain: RunResult
    train, distill, prune, quantize         the chain up to one stage: Checkpoint
    export_bundle(recipe, …)                the chain up to the bundle: its folder
    evaluate(model, images)                 accuracy of a bundle, checkpoint or ONNX file on a folder of images
    benchmark(target, …)                    latency of a bundle, an ONNX file or an engine
    edgekd.runtime.load(bundle)             the device side
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgekd.version import __version__ as __version__

if TYPE_CHECKING:
    from edgekd.api import distill, evaluate, export_bundle, prune, quantize, run, train
    from edgekd.bench.measure import benchmark

__all__ = ["benchmark", "distill", "evaluate", "export_bundle", "prune", "quantize", "run", "train"]


_MODULES = {"benchmark": "edgekd.bench.measure"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgekd' has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "edgekd.api")), name)
