from __future__ import annotations

from edgekd.cli._links import link_command

command = link_command(
    "distill",
    short_help="Distill the student.",
    about="The student, trained on the teacher's answers.",
)
