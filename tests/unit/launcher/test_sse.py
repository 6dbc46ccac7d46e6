"""Server-sent events as lines."""

import pytest

from launcher.sse import event_data


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", ["a", "b"]),
        (b"event: status\nid: 7\ndata:a\n\n", ["a"]),
        (b"data: one\ndata: two\n\n", ["one\ntwo"]),
        (b": keep-alive\n\n: again\n\ndata: a\n\n", ["a"]),
        (b"data: cut off", []),
        (b"", []),
    ],
)
def test_each_event_gives_its_data(stream: bytes, expected: list[str]) -> None:
    assert list(event_data(stream.split(b"\n"))) == expected
