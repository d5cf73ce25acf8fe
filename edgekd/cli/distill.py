from __future__ import annotations

from edgekd.cli._stages import stage_command

command = stage_command(
    "distill",
    short_help="Distill the student.",
    about="The student, distilled from the teacher.",
)
