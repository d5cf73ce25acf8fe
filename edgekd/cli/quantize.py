from __future__ import annotations

from edgekd.cli._stages import stage_command

command = stage_command(
    "quantize",
    short_help="Quantize the network to int8, with quantization-aware distillation.",
    about="The network with int8 quantizers: calibrated, then trained through them (mode qad).",
)
