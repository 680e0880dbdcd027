"""What a server may be asked for: its model, its address and its limits."""

import ipaddress
from dataclasses import dataclass

from derain_cli.errors import UsageError

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class ServeOptions:
    """How a server works; the fields are the command's options.

    Attributes:
        host: Address to listen on; anything but a loopback address lets other machines in.
        port: TCP port, 0 for any that is free.
        queue: Images that may wait while others are worked on; more are refused with 503.
        max_megabytes: Longest upload.
        max_pixels: Larger images are refused before they are decoded.
        patience: Seconds without a byte after which an upload is given up.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    queue: int = 16
    max_megabytes: int = 200
    max_pixels: int = 120_000_000
    patience: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what cannot mean anything, before a network is loaded."""
        if not self.host.strip("[]"):  # an unset variable of a script, most likely
            raise UsageError(
                f"host {self.host!r} names no address: 127.0.0.1 is this machine alone, 0.0.0.0 "
                "admits every other"
            )
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port {self.port} is impossible: it must be 0-65535")
        for name in ("queue", "max_megabytes", "max_pixels"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} is impossible: at least 1")

    @property
    def max_bytes(self) -> int:
        """Longest upload in bytes."""
        return self.max_megabytes * MEGABYTE

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone.

    Example:
        >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0")]
        [True, True, True, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
