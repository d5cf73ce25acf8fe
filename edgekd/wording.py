"""Words of messages that depend on a number."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A number and what it counts, in the singular or in the plural.

    Args:
        noun: in the singular; its last word is the one that changes.

    Example:
        >>> counted(1, "class"), counted(2000, "class"), counted(0, "training image"), counted(2, "query")
        ('1 class', '2,000 classes', '0 training images', '2 queries')
    """
    return f"{count:,} {noun if count == 1 else _plural(noun)}"


def _plural(noun: str) -> str:
    # "epoch" is spoken with a k.
    if noun.endswith(("s", "x", "ch", "sh")) and not noun.endswith("epoch"):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"
