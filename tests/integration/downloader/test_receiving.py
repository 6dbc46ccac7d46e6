"""What the kernel receives ahead of a downloader that does not read: a SIGKILL costs that, too."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from services.downloader.interrupt import Interrupt
from services.downloader.limits import Limits
from services.downloader.sources.connection import Gate
from services.downloader.sources.pacing import Pace
from services.downloader.sources.session import Web
from shared.addresses import AddressPolicy

KIB = 1024
MIB = 1024 * KIB
# Every Linux allows so much: net.core.rmem_max is 208 KiB at least, and the kernel doubles what it is asked for.
EACH = 400 * KIB
QUIET_SECONDS = 1.0  # a sender that got rid of nothing for so long has met a full window


class Sender(threading.Thread):
    """Answers one request with a body without end, as fast as it can, until there was no room for a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.sent = 0

    def run(self) -> None:
        with self.listener.accept()[0] as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
            connection.settimeout(QUIET_SECONDS)
            connection.recv(64 * KIB)
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {2**50}\r\n\r\n".encode())
            with suppress(TimeoutError, ConnectionError):
                while True:
                    self.sent += connection.send(bytes(MIB))


@pytest.fixture
def sender() -> Iterator[Sender]:
    sender = Sender()
    sender.start()
    yield sender
    sender.join()


def _ahead(sender: Sender, limits: Limits) -> int:
    """Read 256 MiB, then stop: return what was sent beyond that."""
    policy = AddressPolicy.from_environ({"R3MES_ALLOW_HTTP_SOURCES": sender.host})
    web = Web(Gate(policy, Interrupt(), limits), limits, Pace(None))
    try:
        url = f"http://{sender.host}/file"
        response = web.request("GET", url, None)  # kept: the connection ends with it
        got = 0
        for chunk in web.chunks(response, url, 2**50):
            got += len(chunk)
            if got >= 256 * MIB:  # meanwhile a kernel that is left alone makes the buffer larger and larger
                break
        sender.join()
        return sender.sent - got
    finally:
        web.close()


def test_the_kernel_receives_no_more_ahead_of_us_than_a_kill_may_cost(sender: Sender) -> None:
    limits = Limits(connections=8, received_bytes=8 * EACH)
    assert _ahead(sender, limits) <= EACH + 256 * KIB, "the sender's own buffer is the rest"


def test_where_the_system_allows_no_such_buffer_the_kernel_is_left_to_itself(sender: Sender) -> None:
    assert _ahead(sender, Limits(connections=1, received_bytes=2**31 - 2)) > EACH + 256 * KIB
