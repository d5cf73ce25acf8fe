from __future__ import annotations

from edgekd.cli._links import link_command

command = link_command(
    "train",
    short_help="Train the teacher, or take it as it is.",
    about="The teacher: trained from labels, or adopted from a checkpoint.",
)
