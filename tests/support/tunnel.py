"""A proxy for https: it knows CONNECT and nothing else, and may lead elsewhere than it was asked to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def tunnel(*, to: int | None = None) -> Iterator[tuple[str, list[str]]]:
    """Run one that leads where it is asked to, or always to the port `to` of this host.

    Yields its URL and the request lines that it saw.
    """
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server, asked, to), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket, asked: list[str], to: int | None) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_tunnel, args=(client, asked, to), daemon=True).start()


def _tunnel(client: socket.socket, asked: list[str], to: int | None) -> None:
    with client, client.makefile("rb") as reader:
        request = reader.readline().decode().strip()
        if not request:  # whoever asks may leave once two have answered
            return
        asked.append(request)
        while reader.readline().strip():
            pass
        host, _, port = request.split()[1].rpartition(":")
        place = (host, int(port)) if to is None else ("127.0.0.1", to)
        with socket.create_connection(place) as upstream:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_copy, args=(upstream, client), daemon=True)
            back.start()
            _copy(client, upstream)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
