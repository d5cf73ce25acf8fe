"""A recipe's budget in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # it brings packages that a device does not have
    from edgekd.report.verdict import Verdict


def show_planned(bounds: Sequence[str]) -> None:
    """What a run will judge."""
    click.echo("\nBudget, judged at the end:")
    for bound in bounds:
        click.echo(f"  {_plain(bound)}")


def show_verdict(verdict: Verdict, measure: str) -> None:
    """The bounds with their values. Args as budget_text.rows()."""
    from edgekd.report import budget_text

    lines = [
        (
            row.name,
            f"{row.value} (95 %: {row.interval})" if row.interval else row.value,
            f"{row.limit} below {row.against}" if row.against else row.limit,
            row.result,
        )
        for row in budget_text.rows(verdict, measure=measure)
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    click.echo(f"\n{budget_text.headline(verdict)}")
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo(_plain(f"  {'  '.join(cells)}".rstrip()))
    if verdict.met:  # those of a missed one are in the message that ends the command
        for sentence in budget_text.notes(verdict):
            click.echo(_plain(f"  {sentence}"))


def missed(verdict: Verdict) -> str:
    """Why a budget is missed, as a message."""
    from edgekd.report import budget_text

    return _plain(budget_text.message(verdict))


def _plain(text: str) -> str:
    """For a terminal, where a space that does not break may be drawn as something else."""
    return text.replace("\u00a0", " ")
