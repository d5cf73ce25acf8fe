from __future__ import annotations

from edgekd.cli._links import link_command

command = link_command(
    "quantize",
    short_help="Calibrate and quantization-aware distill.",
    about="The network with int8 quantizers: calibrated, then trained through them (mode qad).",
)
