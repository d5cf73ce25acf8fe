from __future__ import annotations

from edgekd.cli._stages import stage_command

command = stage_command(
    "prune",
    short_help="Prune the distilled student and recover it.",
    about="The student, pruned to the recipe's target and recovered by distillation.",
)
