"""The line of progress in a terminal, which keeps what matters where there is little room."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.progress import ProgressColumn, Task
from rich.spinner import Spinner
from rich.text import Text

from edgekd.cli._time_left import TimeLeft, duration

_GAP = "  "
_BAR, _LEAST_BAR, _LEAST_NOTE = 24, 6, 9


class Line(ProgressColumn):
    """Spinner, stage, bar, percentage, note and the time that is left; without a percentage the time so far.

    Args:
        console: whose width counts.
        left: the estimates.
    """

    def __init__(self, console: Console, left: TimeLeft) -> None:
        super().__init__()
        self._console, self._left, self._spinner = console, left, Spinner("dots")

    def render(self, task: Task) -> Text:
        """One line, no wider than the terminal."""
        share = f"{task.completed / task.total:4.0%}" if task.total else duration(task.elapsed or 0.0)
        # The spinner takes two columns, and in its last one a terminal may wrap.
        room = self._console.width - 3
        words = fitting(room, [task.description, share], task.fields["note"], self._left.parts())
        bar = min(_BAR, room - _width(words) - len(_GAP))
        frame = self._spinner.render(task.get_time())
        line = Text.assemble(frame if isinstance(frame, Text) else "", " ", words[0], no_wrap=True, end="")
        if task.total and bar >= _LEAST_BAR:
            full = round(bar * task.completed / task.total)
            line.append(_GAP).append("━" * full, "green").append("━" * (bar - full), "bright_black")
        return line.append("".join(_GAP + word for word in words[1:]))


def fitting(room: int, fixed: Sequence[str], note: str, left: Sequence[str]) -> list[str]:
    """The words of a line that has `room` columns.

    Where it is narrow, the note loses its end first, then the last estimate goes, then the note, then the first.

    Args:
        room: in columns.
        fixed: words that always stay.
        note: text behind them, which may be shortened.
        left: estimates behind that, the most important first.
    """
    for count in range(len(left), min(1, len(left)) - 1, -1):
        estimates = left[:count]
        rest = room - _width([*fixed, *estimates]) - len(_GAP)
        if cell_len(note) <= rest:
            return [*fixed, *([note] if note else []), *estimates]
        if rest >= _LEAST_NOTE:
            return [*fixed, f"{note[: rest - 1]}…", *estimates]
    return [*fixed, *(left[:1] if _width([*fixed, *left[:1]]) <= room else [])]


def _width(words: Sequence[str]) -> int:
    return sum(map(cell_len, words)) + len(_GAP) * (len(words) - 1)
