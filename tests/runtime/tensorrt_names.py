"""Which of TensorRT's names a source uses, to compare with those that each real version has."""

from __future__ import annotations

import ast

# What the code calls an object of a TensorRT class, with or without a leading underscore.
ROLES = {
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "tensor": "ITensor",
    "problem": "ParserError",
    "timing_cache": "ITimingCache",
}


def used_names(source: str) -> set[str]:
    """Every name of TensorRT's that a source uses, e.g. "Logger" or "ICudaEngine.num_io_tensors"."""
    used = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute) or node.attr.startswith("__"):
            continue
        owner = node.value
        name = {ast.Name: "id", ast.Attribute: "attr"}.get(type(owner))
        role = getattr(owner, name).lstrip("_") if name else ""
        if role == "trt":
            used.add(node.attr)
        elif role in ROLES:
            used.add(f"{ROLES[role]}.{node.attr}")
        elif isinstance(owner, ast.Attribute) and isinstance(owner.value, ast.Name) and owner.value.id == "trt":
            used.add(f"{owner.attr}.{node.attr}")
    return used


def missing(names: set[str], api: dict) -> set[str]:
    members = {f"{owner}.{member}" for owner, kinds in api.items() for one in kinds.values() for member in one}
    return names - set(api) - members
