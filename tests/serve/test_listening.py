"""Where a server listens, and what it says of that."""

import socket
from urllib.parse import urlsplit

import pytest

from derain_cli.errors import UsageError
from derain_cli.serve.listening import address, listen
from derain_cli.serve.settings import ServeOptions


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::", "[::1]"])
def test_the_address_that_is_said_answers(host: str) -> None:
    if ":" in host and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    options = ServeOptions(host, 0)
    with listen(options) as listening:
        place = urlsplit(address(options, listening))
        with socket.create_connection((place.hostname, place.port), timeout=10) as client:
            assert client.getpeername()[1] == listening.getsockname()[1]


@pytest.mark.parametrize("host", ["", "[]"])
def test_no_address_does_not_mean_all_of_them(host: str) -> None:
    with pytest.raises(UsageError, match="names no address"):
        ServeOptions(host, 0)


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
