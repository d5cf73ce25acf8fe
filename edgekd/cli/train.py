from __future__ import annotations

from edgekd.cli._stages import stage_command

command = stage_command(
    "train",
    stage="teacher",
    short_help="Train the teacher, or take it as it is.",
    about="The teacher: trained from labels, or adopted from a checkpoint.",
)
