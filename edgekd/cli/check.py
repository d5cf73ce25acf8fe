from __future__ import annotations

import click


@click.command("check", short_help="Check which TensorRT versions accept a graph, and why one does not.")
@click.argument("target", metavar="MODEL.onnx|BUNDLE", type=click.Path())
@click.option(
    "--tensorrt",
    "versions",
    multiple=True,
    metavar="10.3",
    help="A version; default: those from JetPack 6 on.",
)
@click.option("--device", help="A device by name: its TensorRT versions and its precisions are checked.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(target: str, versions: tuple[str, ...], device: str | None, as_json: bool) -> None:
    """Check any .onnx file, or every graph of a bundle that is meant for TensorRT.

    Nothing is built, and TensorRT is not needed. The exit code is 1 where a version refuses a graph.
    """
    import json
    from pathlib import Path

    from edgekd.errors import ExportError, require

    require("onnx", purpose="edgekd check", extra="onnx")
    from edgekd.cli import _check

    checked = _check.examine(Path(target), versions, device)
    if as_json:
        click.echo(json.dumps([entry.to_json() for entry in checked], indent=2))
    else:
        _check.show(checked)
        for file in _check.skipped(Path(target)):
            click.echo(f"not checked: {file} is for other engines")
    if (refused := _check.refused(checked)) is not None:
        raise ExportError(refused)
