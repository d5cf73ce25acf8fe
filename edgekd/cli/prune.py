from __future__ import annotations

from edgekd.cli._links import link_command

command = link_command(
    "prune",
    short_help="Prune the distilled student and recover it.",
    about="The student narrowed to the recipe's target, then recovered by distillation.",
)
