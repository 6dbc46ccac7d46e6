"""What upstream says of its file before any byte, what changes of it midway, and which partial file is continued."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable

from shared.states import Source
from shared.store.layout import INCOMING_FILE_MODE, INCOMING_MODE
from shared.store.records import Journal
from tests.support.downloader_process import sha256
from tests.support.fault_stand import RANGE, SIZE, Ending, Fault, Stage, World, cases
from tests.support.lies import breaking, by_method, cut, flipped, flood, half, reset, stall
from tests.support.origin_server import COMMIT, Answer, Script, in_turn, linked, ranged, redirect, status
from tests.support.waiting import wait_until

OTHER_COMMIT = "f" * 40
OTHER = sha256(b"another file")


def _hub(**changes: object) -> Callable[[World], None]:
    """Let the first answer say something else of the file; a None leaves a header out."""

    def arrange(world: World) -> None:
        headers = linked(world.data, **{name.replace("_", "-"): value for name, value in changes.items()})
        world.hub(redirect("/cdn", {name: value for name, value in headers.items() if value is not None}))

    return arrange


def _not_a_byte_was_asked_for(world: World, ending: Ending) -> None:
    assert [seen.method for origin in world.origins for seen in origin.requests if seen.method != "HEAD"] == []
    assert ending.next_attempt_at is not None


def _etag_in_turn(world: World) -> None:
    """Another ETag, and another date, for each answer: no identity of a file."""
    numbers = iter(range(10**6))

    def script(answer: Answer) -> None:
        ranged(world.data, headers={"ETag": f'"{next(numbers)}"', "Last-Modified": f"{next(numbers)}"})(answer)

    world.cdn(script)


def _commit_in_turn(world: World) -> None:
    """A new commit for each answer of the first address, and a break in each range."""
    numbers = iter(range(10**6))

    def script(answer: Answer) -> None:
        redirect("/cdn", linked(world.data, **{"X-Repo-Commit": f"{next(numbers):040x}"}))(answer)

    world.hub(script)


def _upstream_moves_midway(world: World) -> None:
    """Wrong bytes of one revision until a break, then the right ones of the next."""
    was = linked(world.data, **{"X-Repo-Commit": OTHER_COMMIT})
    moved: list[bool] = []

    def hub(answer: Answer) -> None:
        redirect("/new" if moved else "/old", linked(world.data) if moved else was)(answer)

    def old(answer: Answer) -> None:
        moved.append(True)
        breaking(flipped(world.data, 0), half, cut)(answer)

    world.hub(hub)
    world.origin.scripts["/old"] = in_turn(old, status(404))
    world.origin.scripts["/new"] = ranged(world.data)


def _heads(head: Script) -> Callable[[World], None]:
    """Answer HEAD by `head`, and GET as Hugging Face does."""
    return lambda world: world.hub(by_method(head, redirect("/cdn", linked(world.data))))


def _body_for_head(world: World) -> None:
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno!"
    facts = "".join(f"{name}: {value}\r\n" for name, value in linked(world.data).items()).encode()
    answer = b"HTTP/1.1 302 Found\r\nLocation: /cdn\r\n" + facts + b"Content-Length: %d\r\n\r\n" % len(body) + body
    world.hub(by_method(lambda a: a.raw(answer), redirect("/cdn", linked(world.data))))


def _get_for_head_is_endless(world: World) -> None:
    facts = "".join(f"{name}: {value}\r\n" for name, value in linked(world.data).items()).encode()
    endless = flood(bytes(RANGE), before=b"HTTP/1.1 302 Found\r\nLocation: /cdn\r\n" + facts + b"\r\n")
    world.hub(by_method(status(405), endless))


# --- what lies in incoming before the start ------------------------------------------------------------------------


def _partial(
    world: World, data: bytes, *, name: str | None = None, durable: int = 8 * RANGE, **journal: object
) -> None:
    """Leave what a former process would have left: `data` (of the pinned digest, unless `name`d) and a journal."""
    layout, digest = world.store.layout, name or world.digest
    layout.incoming_dir(digest).mkdir()
    layout.incoming_dir(digest).chmod(INCOMING_MODE)
    path = layout.data(digest)
    path.write_bytes(data)
    path.chmod(INCOMING_FILE_MODE)
    fields: dict[str, object] = {
        "sha256": digest,
        "size": len(data),
        "generation": secrets.token_hex(16),
        "ino": path.stat().st_ino,
        "instance": secrets.token_hex(16),
        "source": Source.HUGGINGFACE,
        "url": f"{world.origin.url}{world.path}",
        "revision": COMMIT,
        "prefix": durable,
        "ranges": ((0, durable),),
        "complete": False,
        "updated_at": time.time(),
        **journal,
    }
    Journal.model_validate(fields).write(layout.journal(digest))


def _began_from_0(world: World, ending: Ending) -> None:
    """Not one byte of the former file was taken: all came, and what came was right at once."""
    assert world.sent() >= SIZE
    assert ending.rejected == 0


def _went_on(world: World, _: Ending) -> None:
    assert SIZE - 8 * RANGE <= world.sent() <= SIZE - 7 * RANGE


def _of_another_pin(world: World) -> None:
    """What a former genesis pinned lies under its own digest."""
    _partial(world, os.urandom(SIZE), name=OTHER)


def _former_pin_is_gone(world: World, _: Ending) -> None:
    wait_until(lambda: not world.store.layout.data(OTHER).exists(), 3, "the former pin's bytes to go")


@cases(
    Fault(
        "X-Linked-Etag of other bytes",
        "upstream_mismatch",
        _hub(X_Linked_Etag=f'"{OTHER}"'),
        says=OTHER,
        copies=0,
        slack=0,
        check=_not_a_byte_was_asked_for,
        quick=True,
    ),
    Fault(
        "X-Linked-Size of another file",
        "upstream_mismatch",
        _hub(X_Linked_Size=SIZE + 1),
        says=str(SIZE + 1),
        copies=0,
        slack=0,
        check=_not_a_byte_was_asked_for,
    ),
    Fault(
        "X-Linked-Size beyond required_disk_space_gb, where the genesis names no size",
        "upstream_mismatch",
        lambda w: (w.pin.pop("size_bytes"), _hub(X_Linked_Size=SIZE + 1)(w)),
        copies=0,
        slack=0,
        check=_not_a_byte_was_asked_for,
    ),
    Fault("X-Linked-Etag that is no digest", "verified", _hub(X_Linked_Etag='"etag"'), copies=1),
    Fault("X-Linked-Etag of 64 characters that are no hex", "verified", _hub(X_Linked_Etag=f'"{"z" * 64}"'), copies=1),
    Fault("X-Linked-Size that is no number", "verified", _hub(X_Linked_Size="large"), copies=1),
    Fault("X-Linked-Size that is negative", "verified", _hub(X_Linked_Size=-1), copies=1),
    Fault("X-Repo-Commit of 10 kB", "verified", _hub(X_Repo_Commit="c" * 10_000), copies=1),
    Fault(
        "no word of the file", "verified", _hub(X_Linked_Etag=None, X_Linked_Size=None, X_Repo_Commit=None), copies=1
    ),
    Fault(
        "the right X-Linked-Etag before wrong bytes: it vetoes and never approves",
        "hash_mismatch",
        lambda w: w.cdn(ranged(flipped(w.data, 7))),
    ),
    Fault("another ETag with each answer, which is legal", "verified", _etag_in_turn, copies=1),
    Fault("another X-Repo-Commit with each answer", "verified", _commit_in_turn, copies=1),
    Fault(
        "upstream moves midway: wrong bytes, a break, then the right ones", "verified", _upstream_moves_midway, copies=3
    ),
    Fault("HEAD refused with 405", "verified", _heads(status(405)), copies=1.01),
    Fault("HEAD refused with 501", "verified", _heads(status(501)), copies=1.01),
    Fault("HEAD refused with 405, and GET instead has an endless body", "verified", _get_for_head_is_endless, copies=1),
    Fault("HEAD that hangs, always", "source_unavailable", _heads(stall), copies=0, slack=0),
    Fault(
        "HEAD that hangs, once",
        "verified",
        lambda w: w.hub(in_turn(stall, redirect("/cdn", linked(w.data)))),
        copies=1,
    ),
    Fault("HEAD that is reset, always", "source_unavailable", _heads(reset), copies=0, slack=0),
    Fault("HEAD with a body that looks like the next answer", "verified", _body_for_head, copies=1.01),
    Fault("HEAD answered with 500, always", "source_unavailable", _heads(status(500)), says="500", copies=0, slack=0),
    Fault("HEAD answered with 404 where GET would work", "source_unavailable", _heads(status(404)), copies=0, slack=0),
    Fault(
        "a partial file of another revision, with other bytes",
        "verified",
        lambda w: _partial(w, flipped(w.data, 0), revision=OTHER_COMMIT),
        check=_began_from_0,
        quick=True,
    ),
    Fault(
        "a partial file of another size",
        "verified",
        lambda w: _partial(w, bytes(SIZE - 1)),
        check=_began_from_0,
    ),
    Fault(
        "a partial file of another source",
        "verified",
        lambda w: _partial(w, flipped(w.data, 0), source=Source.IPFS),
        check=_began_from_0,
    ),
    Fault(
        "a partial file whose journal is of another digest",
        "verified",
        lambda w: _partial(w, flipped(w.data, 0), sha256=OTHER),
        check=_began_from_0,
    ),
    Fault(
        "a partial file whose journal is of another inode",
        "verified",
        lambda w: _partial(w, flipped(w.data, 0), ino=1),
        check=_began_from_0,
    ),
    Fault("a partial file of this revision is continued", "verified", lambda w: _partial(w, w.data), check=_went_on),
    Fault(
        "a partial file of this revision with a wrong byte",
        "verified",
        lambda w: _partial(w, flipped(w.data, 0)),
    ),
    Fault(
        "a partial file of another pin is removed",
        "verified",
        _of_another_pin,
        check=_former_pin_is_gone,
    ),
)
def test_identity(fault: Fault, stage: Stage) -> None:
    stage.play(fault)
