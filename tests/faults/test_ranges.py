"""What an origin says of the range that it sends: Content-Range, and 200 to a request for a part."""

from __future__ import annotations

from collections.abc import Callable

from tests.support import lies
from tests.support.fault_stand import SIZE, Fault, Stage, World, cases
from tests.support.lies import content_range, every, first, heads, once, ranges, right_head
from tests.support.origin_server import Script, ranged, redirect, whole


def _shifted(data: bytes) -> Script:
    return ranges(data, lambda s, e: (right_head(s + 1, e + 1, len(data)), data[s + 1 : e + 1]))


def _multipart(data: bytes) -> Script:
    def change(start: int, end: int) -> tuple[dict[str, object], bytes]:
        head = f"--b\r\nContent-Range: bytes {start}-{end - 1}/{len(data)}\r\n\r\n".encode()
        body = head + data[start:end] + b"\r\n--b--\r\n"
        return {"Content-Type": "multipart/byteranges; boundary=b", "Content-Length": len(body)}, body

    return ranges(data, change)


def _ranges_named(data: bytes, value: str) -> Script:
    """Say `value` as Content-Range, with the right bytes; {s}, {l} and {n} stand for first, last and size."""
    return heads(data, lambda s, e: {"Content-Range": value.format(s=s, l=e - 1, n=len(data))})


def _always(value: str) -> Callable[[World], None]:
    return lambda world: world.cdn(_ranges_named(world.data, value))


@cases(
    Fault(
        "shifted Content-Range, always",
        "source_unavailable",
        lambda w: w.cdn(_shifted(w.data)),
        copies=1,
        quick=True,
    ),
    Fault(
        "shifted Content-Range, once", "verified", lambda w: w.cdn(once(_shifted(w.data), ranged(w.data))), quick=True
    ),
    Fault(
        "shifted bytes under the right Content-Range",
        "hash_mismatch",
        lambda w: w.cdn(ranges(w.data, lambda s, e: (right_head(s, e, len(w.data)), (w.data + b"x")[s + 1 : e + 1]))),
    ),
    Fault(
        "no Content-Range, always",
        "source_unavailable",
        lambda w: w.cdn(heads(w.data, lambda _s, _e: {"Content-Range": None})),
        copies=1,
    ),
    Fault(
        "no Content-Range, once",
        "verified",
        lambda w: w.cdn(once(heads(w.data, lambda _s, _e: {"Content-Range": None}), ranged(w.data))),
    ),
    Fault("Content-Range without an end", "source_unavailable", _always("bytes {s}-/{n}"), copies=1),
    Fault("Content-Range in other units", "source_unavailable", _always("items {s}-{l}/{n}"), copies=1),
    Fault("Content-Range that is empty", "source_unavailable", _always(""), copies=1),
    Fault("Content-Range backwards", "source_unavailable", _always("bytes {l}-{s}/{n}"), copies=1),
    Fault("Content-Range with negative numbers", "source_unavailable", _always("bytes -{s}-{l}/{n}"), copies=1),
    Fault("Content-Range with a number of 40 digits", "source_unavailable", _always(f"bytes {{s}}-{{l}}/{'9' * 40}")),
    Fault(
        "two Content-Ranges in one answer",
        "source_unavailable",
        _always("bytes {s}-{l}/{n}, bytes 0-{l}/{n}"),
        copies=1,
    ),
    Fault(
        "Content-Range that begins before what was asked",
        "source_unavailable",
        lambda w: w.cdn(
            first(1, ranged(w.data), ranges(w.data, lambda s, e: (right_head(s - 1, e, SIZE), w.data[s - 1 : e])))
        ),
    ),
    Fault(
        "Content-Range that goes beyond what was asked",
        "source_unavailable",
        lambda w: w.cdn(ranges(w.data, lambda s, _: (right_head(s, SIZE, SIZE), w.data[s:]))),
    ),
    Fault(
        "a total that differs from the pin, always",
        "upstream_mismatch",
        _always("bytes {s}-{l}/" + str(SIZE + 1)),
        copies=1,
        quick=True,
    ),
    Fault(
        "a total that changes midway",
        "upstream_mismatch",
        lambda w: w.cdn(once(_ranges_named(w.data, "bytes {s}-{l}/" + str(SIZE + 1)), ranged(w.data))),
    ),
    Fault("a total of *, which is legal", "verified", _always("bytes {s}-{l}/*"), copies=1),
    Fault(
        "a total of * where nobody knows the size",
        "source_unavailable",
        lambda w: (w.pin.pop("size_bytes"), w.hub(redirect("/cdn")), w.cdn(_ranges_named(w.data, "bytes {s}-{l}/*"))),
        copies=1,
    ),
    Fault(
        "206 shorter than asked, which is legal",
        "verified",
        lambda w: w.cdn(
            ranges(w.data, lambda s, e: (right_head(s, s + (e - s + 1) // 2, SIZE), w.data[s : s + (e - s + 1) // 2]))
        ),
        copies=1,
        size=SIZE,
    ),
    Fault("multipart/byteranges, always", "source_unavailable", lambda w: w.cdn(_multipart(w.data)), copies=1),
    Fault("multipart/byteranges, once", "verified", lambda w: w.cdn(once(_multipart(w.data), ranged(w.data)))),
    Fault("200 to every Range request", "verified", lambda w: w.cdn(whole(w.data)), copies=1, quick=True),
    Fault("200 to the first Range request alone", "verified", lambda w: w.cdn(first(1, whole(w.data), ranged(w.data)))),
    Fault("200 to a later Range request", "verified", lambda w: w.cdn(once(whole(w.data), ranged(w.data))), copies=3),
    Fault(
        "200 to every third Range request",
        "verified",
        lambda w: w.cdn(every(3, whole(w.data), ranged(w.data))),
        copies=4,  # eight connections meet three of them before anyone knows, then it comes in one piece
    ),
    Fault(
        "200 to every Range request, with other bytes",
        "hash_mismatch",
        lambda w: w.cdn(whole(lies.flipped(w.data, SIZE // 2))),
    ),
    Fault(
        "200 with the range alone",
        "source_unavailable",
        lambda w: w.cdn(heads(w.data, lambda _s, _e: {"Content-Range": None}, code=200)),
        copies=1,
    ),
    Fault(
        "200 with the range alone and a Content-Range",
        "source_unavailable",
        lambda w: w.cdn(heads(w.data, lambda s, e: content_range(s, e, SIZE), code=200)),
        copies=1,
    ),
    Fault(
        "200 that ends half way, always",
        "source_unavailable",
        lambda w: w.cdn(ranges(w.data, lambda _s, _e: ({"Content-Length": SIZE}, w.data[: SIZE // 2]), code=200)),
        copies=3,
    ),
    Fault(
        "206 with the whole file, whatever was asked",
        "source_unavailable",
        lambda w: w.cdn(ranges(w.data, lambda _s, _e: (right_head(0, SIZE, SIZE), w.data))),
        copies=6,
    ),
)
def test_ranges(fault: Fault, stage: Stage) -> None:
    stage.play(fault)
