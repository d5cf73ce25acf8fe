from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from edgekd.devices.profiles import Profile

_FIGURES = {"local": "measured here", "board": "from its profile, not measured"}
_UNKNOWN_PRECISIONS = "depends on the engine"
_WIDTH_IN_FILES = 160


@click.group("devices", short_help="List devices, or show one device's profile.")
def command() -> None:
    """Devices by name: this machine, and boards that have a profile."""


@command.command("list", short_help="All devices, one per line.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_devices(as_json: bool) -> None:
    """List all devices: engines, precisions, memory, and whether edgekd measures on them or only has a profile."""
    import json

    from rich.markup import escape
    from rich.table import Table

    from edgekd.devices import profiles

    rows = [_row(profiles.find(name)) for name in profiles.names()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("name", "title", "engines", "precisions", "memory", "figures", box=None, pad_edge=False)
    table.columns[4].justify = "right"
    for row in rows:
        memory = "" if row["memory_gb"] is None else f"{row['memory_gb']:g} GB"
        precisions = ", ".join(row["precisions"] or [_UNKNOWN_PRECISIONS])
        table.add_row(row["name"], escape(row["title"]), ", ".join(row["engines"]), precisions, memory, row["figures"])
    _console().print(table)


@command.command("show", short_help="The profile of one device.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def show_device(name: str, as_json: bool) -> None:
    """Show the device NAME: every figure with its unit, its source and whether it was verified."""
    import json

    from rich.markup import escape

    from edgekd.devices import profiles

    profile = profiles.find(name)
    machine = _machine() if profile.kind == "local" else None
    if as_json:
        click.echo(json.dumps({**profile.model_dump(mode="json"), "machine": machine}, indent=2))
        return
    console = _console()
    console.print(f"[bold]{escape(profile.title)}[/] ({profile.name}): {_FIGURES[profile.kind]}", soft_wrap=True)
    _show_head(console, profile, machine)
    if profile.facts:
        _show_facts(console, profile)
    if profile.power_modes:
        _show_power_modes(console, profile)
    for note in profile.notes:
        console.print(f"[yellow]![/] {escape(note)}", soft_wrap=True)


def _row(profile: Profile) -> dict[str, Any]:
    local = profile.kind == "local"
    memory = profile.fact("memory")
    gigabytes = round(_machine()["ram_bytes"] / 1e9, 1) if local else memory and memory.value
    return {
        "name": profile.name,
        "title": profile.title,
        "engines": _usable_engines() if local else profile.engines,
        "precisions": profile.precisions,
        "memory_gb": gigabytes,
        "figures": _FIGURES[profile.kind],
    }


def _machine() -> dict[str, Any]:
    from edgekd.bench.environment import environment

    return environment().model_dump(mode="json")


def _usable_engines() -> list[str]:
    from edgekd.runtime.backends import all_backends

    return [backend.name for backend in all_backends() if backend.available() is None]


def _show_head(console: Console, profile: Profile, machine: dict[str, Any] | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    rows = {
        "arch": profile.arch,
        "engines": ", ".join(profile.engines if machine is None else _usable_engines()),
        "precisions": ", ".join(profile.precisions or [_UNKNOWN_PRECISIONS]),
        "channel multiple": profile.channel_multiple,
        "TensorRT of its JetPacks": ", ".join(profile.tensorrt) or None,
        **(machine or {}),
    }
    for label, value in rows.items():
        if value is not None:
            table.add_row(label, escape(str(value)))
    console.print(table)


def _show_facts(console: Console, profile: Profile) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("figure", "value", "unit", "verified", "source", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for fact in profile.facts:
        verified = "[green]yes[/]" if fact.verified else "[yellow]no[/]"
        table.add_row(fact.figure, escape(str(fact.value)), fact.unit or "", verified, escape(fact.source))
    console.print("", table)


def _show_power_modes(console: Console, profile: Profile) -> None:
    from rich.table import Table

    table = Table("power mode", box=None, pad_edge=False)
    for column in ("CPU cores", "CPU MHz", "GPU MHz", "GPU TPCs", "memory MHz"):
        table.add_column(column, justify="right")
    table.add_column("source")
    for mode in profile.power_modes:
        clocks = ["max" if mhz is None else f"{mhz:g}" for mhz in (mode.cpu_mhz, mode.gpu_mhz, mode.memory_mhz)]
        name = f"{mode.name} (default)" if mode.default else mode.name
        tpcs = "" if mode.gpu_tpcs is None else str(mode.gpu_tpcs)
        table.add_row(name, str(mode.cpu_cores), clocks[0], clocks[1], tpcs, clocks[2], mode.source)
    console.print("", table)


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_IN_FILES)
