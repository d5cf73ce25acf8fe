"""The checks of `edgekd check`, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekd.devices import profiles
from edgekd.errors import ExportError, UsageError
from edgekd.export.legality import JETPACKS, VERSIONS, Finding, Verdict, check, has_int8, is_offered, read
from edgekd.runtime import bundle
from edgekd.wording import counted

_SHOWN_NODES = 3


@dataclass(frozen=True)
class Checked:
    """One graph with a verdict per TensorRT version."""

    name: str
    verdicts: tuple[Verdict, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "graph": self.name,
            "verdicts": [{**asdict(verdict), "jetpack": _jetpack(verdict.version)} for verdict in self.verdicts],
        }


@dataclass(frozen=True)
class Group:
    """Findings that differ only in their node or version."""

    finding: Finding
    versions: tuple[str, ...]
    nodes: tuple[str, ...]


def examine(target: Path, versions: Sequence[str], device: str | None) -> list[Checked]:
    """Check a file, or every graph of a bundle that TensorRT can be given.

    Args:
        target: an .onnx file or a bundle's folder.
        versions: TensorRT versions; empty: those of the device, or the default ones.
        device: a device by name, whose precisions are checked as well.

    Raises:
        UnknownNameError: no such device.
        UsageError: no such TensorRT version, or a device without TensorRT.
        ExportError, BundleError: a file that cannot be read.
    """
    profile = _with_tensorrt(device) if device is not None else None
    chosen = dict.fromkeys(versions or (profile.tensorrt if profile else ()) or VERSIONS)
    return [
        Checked(name, tuple(_for_device(check(graph, version), graph, profile) for version in chosen))
        for name, graph in _graphs(target)
    ]


def skipped(target: Path) -> list[str]:
    """The files of a bundle that TensorRT is not given: those with activations that it does not run."""
    if not target.is_dir():
        return []
    variants = bundle.read(target).variants.values()
    return [each.file for each in variants if each.file.endswith(".onnx") and not is_offered(each.activations)]


def refused(checked: Sequence[Checked]) -> str | None:
    """One line with the graphs that are not legal and for which versions; None where all are legal."""
    problems = []
    for entry in checked:
        if versions := [verdict.version for verdict in entry.verdicts if not verdict.legal]:
            problems.append(f"{entry.name} is not legal for TensorRT {', '.join(versions)}")
    return "; ".join(problems) or None


def grouped(verdicts: Sequence[Verdict]) -> list[Group]:
    """Findings of all versions, errors first; equal findings about several nodes form one group."""
    found: dict[Finding, tuple[dict[str, None], dict[str, None]]] = {}
    for verdict in verdicts:
        for finding in verdict.findings:
            versions, nodes = found.setdefault(replace(finding, node=""), ({}, {}))
            versions[verdict.version] = None
            if finding.node:
                nodes[finding.node] = None
    groups = [Group(finding, tuple(versions), tuple(nodes)) for finding, (versions, nodes) in found.items()]
    return sorted(groups, key=lambda group: group.finding.level != "error")


def show(checked: Sequence[Checked]) -> None:
    console = Console(highlight=False)
    table = Table("graph", "TensorRT", "", "verdict", box=None, pad_edge=False)
    for entry in checked:
        for verdict in entry.verdicts:
            table.add_row(escape(entry.name), verdict.version, _jetpack(verdict.version), _verdict_text(verdict))
    console.print(table)
    for entry in checked:
        for group in grouped(entry.verdicts):
            _show_group(console, entry, group)
    notes: dict[str, list[str]] = {}
    for verdict in checked[0].verdicts:
        notes.setdefault(verdict.note, []).append(verdict.version)
    for note, versions in notes.items():
        console.print(f"\n{', '.join(versions)}: {escape(note)}.", style="dim", soft_wrap=True)


def _show_group(console: Console, entry: Checked, group: Group) -> None:
    finding = group.finding
    colour = "red" if finding.level == "error" else "yellow"
    everywhere = len(group.versions) == len(entry.verdicts)
    where = "" if everywhere else f" (TensorRT {', '.join(group.versions)})"
    message = escape(f"{entry.name}: {finding.rule}: {finding.message}{where}")
    console.print(f"\n[{colour}]{finding.level}[/] {message}", soft_wrap=True)
    if group.nodes:
        more = len(group.nodes) - _SHOWN_NODES
        shown = ", ".join(group.nodes[:_SHOWN_NODES]) + (f" and {more} more" if more > 0 else "")
        console.print(f"  {counted(len(group.nodes), 'place')}: {escape(shown)}", soft_wrap=True)
    if finding.hint:
        console.print(f"  next: {escape(finding.hint)}", soft_wrap=True)


def _graphs(target: Path) -> list[tuple[str, onnx.ModelProto]]:
    if not target.is_dir():
        return [(target.name, read(target))]
    manifest = bundle.read(target)
    files = {
        variant.file: name
        for name, variant in manifest.variants.items()
        if variant.file.endswith(".onnx") and is_offered(variant.activations)
    }
    if not files:
        raise ExportError(f"{target} has no graph for TensorRT", found=f"the variants {', '.join(manifest.variants)}")
    return [(file, read(manifest.path / file)) for file in files]


def _with_tensorrt(device: str) -> profiles.Profile:
    profile = profiles.find(device)
    if profile.engines and "tensorrt" not in profile.engines:
        raise UsageError(
            f"{profile.title} does not run TensorRT",
            found=f"its engines: {', '.join(profile.engines)}",
            allowed="a device with TensorRT, e.g. jetson-orin-nano-8gb",
        )
    return profile


def _for_device(verdict: Verdict, graph: onnx.ModelProto, profile: profiles.Profile | None) -> Verdict:
    if profile is None or profile.precisions is None or "int8" in profile.precisions or not has_int8(graph):
        return verdict
    finding = Finding("error", "device", "", f"{profile.title} has no int8", "ship the fp16 variant")
    return replace(verdict, legal=False, findings=(finding, *verdict.findings))


def _jetpack(version: str) -> str:
    return JETPACKS.get(".".join(version.split(".")[:2]), "")


def _verdict_text(verdict: Verdict) -> str:
    causes = {replace(finding, node="") for finding in verdict.findings}
    errors = sum(finding.level == "error" for finding in causes)
    warnings = len(causes) - errors
    counts = [counted(n, noun) for n, noun in ((errors, "error"), (warnings, "warning")) if n]
    return ("[green]legal[/]" if verdict.legal else "[red]not legal[/]") + (f": {', '.join(counts)}" if counts else "")
