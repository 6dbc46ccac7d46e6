"""Server-sent events, the part that our endpoints use: `data:` lines, an empty line ends an event, `:` is a comment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import requests


def event_data(lines: Iterable[bytes]) -> Iterator[str]:
    """Yield the data of each event; an event without data, or cut off before its end, is none."""
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield "\n".join(data)
            data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" ").decode("utf-8", errors="replace"))


def response_lines(response: requests.Response) -> Iterator[bytes]:
    """Yield lines as they come; raises requests.RequestException.

    A body that is not sent in chunks is read byte by byte: urllib3 would wait for its end.
    """
    in_chunks = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
    lines: Iterator[bytes] = response.iter_lines(chunk_size=None if in_chunks else 1)
    return lines
