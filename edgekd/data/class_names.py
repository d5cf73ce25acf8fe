"""Names of classes that look like one another."""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from edgekd.errors import DataError

_NAMED = 10


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """The groups of names that differ only in case, white space or Unicode form, in their order.

    Single letters are not compared by case: "a" and "A" are classes of their own, where the classes are letters.

    Example:
        >>> alike(["cat", "Dog", "CAT ", "bird", "a", "A"])
        [('cat', 'CAT ')]
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_folded(name)].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def spelled(names: Sequence[str]) -> str:
    """Names in quotes; characters that cannot be seen, and names that would look the same, are escaped.

    Example:
        >>> spelled(["cat", "cat ", "cat\\u200b"])
        '"cat", "cat ", "cat\\\\u200b"'
    """
    seen = [unicodedata.normalize("NFKC", name) for name in names]
    return ", ".join(
        json.dumps(name, ensure_ascii=not name.isprintable() or seen.count(form) > 1)
        for name, form in zip(names, seen, strict=True)
    )


def warnings_of(names: Sequence[str]) -> list[str]:
    """Warnings about names that may be one class written in several ways, and about white space around a name."""
    groups = alike(names)
    found = []
    if groups:
        shown = "; ".join(spelled(group) for group in groups[:_NAMED]) + ("; …" if len(groups) > _NAMED else "")
        found.append(
            f"Classes whose names differ only in case, white space or Unicode form: {shown}. They count as different "
            "classes: give them one name if they are one."
        )
    spaced = [name for name in names if name != name.strip() and not any(name in group for group in groups)]
    if spaced:
        shown = spelled(spaced[:_NAMED]) + (", …" if len(spaced) > _NAMED else "")
        found.append(f"White space is part of the {'name' if len(spaced) == 1 else 'names'} {shown}.")
    return found


def check_known(names: Iterable[str], classes: Sequence[str], *, split: str, where: str = "", remedy: str) -> None:
    """Check that a split has no classes that the training images lack.

    Args:
        names: the classes of the split.
        classes: of the training images.
        split: its name.
        where: what the message begins with, e.g. a path.
        remedy: how to get rid of such a class.

    Raises:
        DataError: it has some.
    """
    unknown = sorted(set(names) - set(classes))
    if not unknown:
        return
    twins = [group for group in alike([*classes, *unknown]) if not set(group) <= set(classes)]
    more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    raise DataError(
        f"{where}{': ' if where else ''}the {split} split has classes that train lacks",
        found=", ".join(unknown[:_NAMED]) + more,
        hint=f"write it in one way: {'; '.join(spelled(group) for group in twins[:_NAMED])}"
        if twins
        else f"add training images of them, or {remedy}",
    )


def _folded(name: str) -> str:
    form = unicodedata.normalize("NFKC", name)
    visible = "".join(each for each in form if unicodedata.category(each) != "Cf")
    words = " ".join(visible.split())
    return words if len(words) == 1 else unicodedata.normalize("NFKC", words.casefold())
