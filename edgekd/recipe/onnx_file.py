"""ONNX files in a recipe: `model: teacher.onnx`."""

from __future__ import annotations

from pathlib import Path

from edgekd.errors import UsageError

_SUFFIX = ".onnx"


def onnx_file(model: str, folder: Path | None = None) -> Path | None:
    """The ONNX file that a recipe's `model` names, as an absolute path; None for other models.

    Args:
        folder: what a relative path is relative to; default: the current folder.
    """
    return (folder or Path()).joinpath(model).absolute() if model.lower().endswith(_SUFFIX) else None


def check_onnx_file(model: str) -> bool:
    """Whether `model` names an ONNX file. Raises UsageError where there is none."""
    file = onnx_file(model)
    if file is not None and not file.is_file():
        raise UsageError(f"{file} does not exist", allowed="an ONNX file; its path is relative to the recipe's file")
    return file is not None
