"""What the kernel receives ahead of a downloader that does not read: a SIGKILL costs that, too."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest
from urllib3.connection import HTTPConnection

from services.downloader.interrupt import Interrupt
from services.downloader.limits import Limits
from services.downloader.sources.connection import Gate
from shared.addresses import AddressPolicy

KIB = 1024
MIB = 1024 * KIB
# Every Linux allows so much: net.core.rmem_max is 208 KiB at least, and the kernel doubles what it is asked for.
EACH = 400 * KIB
QUIET_SECONDS = 1.0  # a sender that got rid of nothing for so long has met a full window


class Sender(threading.Thread):
    """Sends to the one who connects, as much as there is room for, until there has been none for a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.sent = 0

    def run(self) -> None:
        with self.listener.accept()[0] as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
            connection.settimeout(QUIET_SECONDS)
            with suppress(TimeoutError, ConnectionError):
                while True:
                    self.sent += connection.send(bytes(MIB))


def _connect(sender: Sender, limits: Limits) -> socket.socket:
    policy = AddressPolicy.from_environ({"R3MES_ALLOW_HTTP_SOURCES": sender.host})
    host, port = sender.host.split(":")
    return Gate(policy, Interrupt(), limits).connect(HTTPConnection(host, int(port)), "http")


@pytest.fixture
def sender() -> Sender:
    sender = Sender()
    sender.start()
    return sender


def test_the_kernel_receives_no_more_ahead_of_us_than_a_kill_may_cost(sender: Sender) -> None:
    limits = Limits(connections=8, received_bytes=8 * EACH)
    with _connect(sender, limits) as sock:
        got, buffer = 0, bytearray(MIB)
        while got < 256 * MIB:  # meanwhile a kernel that is left alone makes the buffer larger and larger
            got += sock.recv_into(buffer)
        sender.join()
        assert sender.sent - got <= EACH + 256 * KIB, "the sender's own buffer is the rest"


def test_where_the_system_allows_no_such_buffer_the_kernel_is_left_to_itself(sender: Sender) -> None:
    with socket.create_connection(sender.listener.getsockname()) as untouched:
        by_itself = untouched.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    with _connect(sender, Limits(connections=1, received_bytes=2**31 - 2)) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == by_itself
