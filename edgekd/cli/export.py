from __future__ import annotations

from edgekd.cli._stages import stage_command

command = stage_command(
    "export",
    stage="bundle",
    short_help="Export, verify and measure the graphs, and pack the bundle.",
    about="The bundle: ONNX graphs, verified against the networks, with their accuracy and latency.",
)
