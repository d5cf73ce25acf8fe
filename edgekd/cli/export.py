from __future__ import annotations

from edgekd.cli._links import link_command

command = link_command(
    "export",
    short_help="Export, prove and measure the graphs, and pack the bundle.",
    about="The bundle: ONNX graphs, proven against the networks, their accuracy and latency.",
)
