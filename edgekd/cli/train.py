from __future__ import annotations

from edgekd.cli._stages import stage_command

command = stage_command(
    "train",
    stage="teacher",
    short_help="Train the teacher, or load it from a checkpoint.",
    about="The teacher: trained on labels, or loaded from a checkpoint.",
)
