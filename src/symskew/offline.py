"""No network: libraries are told, and whatever tries to connect all the same is stopped."""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import Any

VARIABLE = "SYMSKEW_OFFLINE"
"""The environment variable that stands for `--offline`; it reaches the processes that this one starts."""
_TOLD = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "offline"}
_HOST_AT = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,  # of gethostbyname_ex too
    "socket.gethostbyaddr": 0,
    "socket.getnameinfo": 0,
}
"""What Python's sockets do with a host, and which argument of the event says which."""
_hooked: list[bool] = []


def go_offline() -> None:
    """From now on, this process connects to nothing but the loopback addresses of this machine.

    Libraries are told by their own variables, which the processes that this one starts inherit. Python's sockets refuse
    by an audit hook: a connection, a packet or a look-up of a name raises OSError, wherever it is tried. The workers of
    a study have that hook too. Other processes, and a library that opens sockets of its own, outside of Python, are
    only told.
    """
    os.environ |= {VARIABLE: "1", **_TOLD}
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None:  # it reads its variable when it is loaded
        hub.__dict__["HF_HUB_OFFLINE"] = True
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_refuse)


def is_offline() -> bool:
    """Whether this process is to connect to nothing."""
    return os.environ.get(VARIABLE, "0") not in ("", "0")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine under a name or address that needs no network to reach it.

    >>> [host for host in ("localhost", "127.0.0.1", "::1", "127.example.com", "10.0.0.5") if is_loopback(host)]
    ['localhost', '127.0.0.1', '::1']
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    place = _HOST_AT.get(event)
    if place is None or not is_offline():
        return
    address = arguments[place]
    if place and not isinstance(address, tuple):
        return  # a path, which is a socket of this machine; or none, where what is connected was asked about before
    host = address[0] if isinstance(address, tuple) else address
    text = host.decode(errors="replace") if isinstance(host, bytes) else str(host or "localhost")
    if not is_loopback(text):
        raise OSError(f"symskew: offline, and something tried to connect to {text}")
