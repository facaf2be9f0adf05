"""No network: libraries are told, and whatever tries to connect all the same is stopped."""

from __future__ import annotations

import os
import sys
from typing import Any

VARIABLE = "SYMSKEW_OFFLINE"
"""The environment variable that stands for `--offline`; it reaches the workers of a study."""
_TOLD = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "WANDB_OFFLINE")
_LOCAL = ("127.", "::1", "localhost")
_hooked: list[bool] = []


def go_offline() -> None:
    """From now on, this process and those that it starts connect to nothing but this machine.

    Libraries are told by their own variables, and Python's sockets refuse by an audit hook: a connection or a look-up
    of a name raises OSError, wherever it is tried. A library that opens sockets of its own, outside of Python, is only
    told.
    """
    os.environ[VARIABLE] = "1"
    for name in _TOLD:
        os.environ[name] = "1"
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None:  # it reads its variable when it is loaded
        hub.__dict__["HF_HUB_OFFLINE"] = True
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_refuse)


def is_offline() -> bool:
    """Whether this process is to connect to nothing."""
    return os.environ.get(VARIABLE, "0") not in ("", "0")


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in ("socket.connect", "socket.getaddrinfo", "socket.sendto") or not is_offline():
        return
    address = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
    host = address[0] if isinstance(address, tuple) else address
    # A path is a socket of this machine.
    if isinstance(address, tuple) or event == "socket.getaddrinfo":
        text = host.decode() if isinstance(host, bytes) else str(host or "localhost")
        if not text.startswith(_LOCAL):
            raise OSError(f"symskew: offline, and something tried to connect to {text}")
