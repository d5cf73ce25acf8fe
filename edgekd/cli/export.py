from __future__ import annotations

from edgekd.cli._stages import stage_command

command = stage_command(
    "export",
    stage="bundle",
    short_help="Export, prove and measure the graphs, and pack the bundle.",
    about="The bundle: ONNX graphs, proven against the networks, their accuracy and latency.",
)
