"""Which hosts are this machine, so that what is said to them leaves it by no wire."""

from __future__ import annotations

import ipaddress


def is_this_machine(host: str | None) -> bool:
    """Tell whether a host's name, or address, is of the loopback."""
    if host is None or host == "localhost":
        return host is not None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
