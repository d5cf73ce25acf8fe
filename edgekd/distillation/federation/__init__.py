"""Federated distillation: the partition of the images, a client's part of a round, and the exchange through Flower.

apps.py is the only file that imports Flower; call flower() before it.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.errors import require

Logits = npt.NDArray[np.float16]  # (V, N, C): of V views of N images


def flower() -> None:
    """Import Flower with telemetry and update checks off, a log of warnings only, and its home in a temporary folder.

    Raises:
        MissingDependencyError: it is not installed here.
    """
    home = Path(tempfile.gettempdir()) / f"edgekd-flower-{os.getuid()}"
    quiet = {"TELEMETRY_ENABLED": "0", "DISABLE_UPDATE_CHECK": "1", "LOG_LEVEL": "WARNING", "HOME": str(home)}
    for name, value in quiet.items():
        os.environ.setdefault(f"FLWR_{name}", value)
    loggers = [logging.getLogger(name) for name in ("flwr", "flwr-telemetry")]
    before = [list(logger.handlers) for logger in loggers]
    with warnings.catch_warnings():
        # Flower imports typer, which still uses two deprecated functions of click.
        warnings.filterwarnings("ignore", r"'click\.utils\.get_(binary|text)_stream'", DeprecationWarning)
        for module in ("flwr", "flwr.app", "flwr.clientapp", "flwr.serverapp.strategy"):
            require(module, purpose="the scheme federated", extra="federated")
    for logger, handlers in zip(loggers, before, strict=True):
        # Its own handlers would print each message a second time, after the root's.
        logger.handlers[:] = handlers
        logger.setLevel(logging.WARNING)
