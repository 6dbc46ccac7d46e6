"""Attacks against what is accepted: another operator's file, another staged one, and hands in `trust/` itself.

Whoever can write to `trust/` as its owner can replace the whole pair. On a host that is every service (docs/trust.md,
"Where it ends"); in containers nobody who runs (test_service_users.py). What is shown here for that case: the next
start refuses as long as the operator's file is there, and a service that runs takes no half of a pair.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.errors import GenesisError, StoreError
from shared.genesis import MAX_GENESIS_BYTES
from shared.store import trust as trust_module
from shared.store.trust import TrustWatch, read_trust
from tests.support.attacks import NEW, OLD, Deed, Running, sentence, speaks
from tests.support.geneses import DIGEST, OTHER_DIGEST, entry, list_form, other_entry, plain_form
from tests.support.genesis_host import Host

CHANGED = "is not the genesis that was accepted"
DISAGREE = "genesis.json and accepted.json disagree"
GONE = "its accepted genesis is gone"
EVIL = plain_form(verification_sha256=hashlib.sha256(b"evil").hexdigest())


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def written(raw: bytes) -> Callable[[Host], object]:
    """The operator's file becomes these bytes."""
    return lambda host: host.file.write_bytes(raw)


def changed(attacks: str, raw: bytes, *says: str) -> Deed:
    return Deed(attacks, written(raw), (CHANGED, *says, "r3mes genesis accept"))


def _reordered(host: Host) -> None:
    model = json.loads(OLD)["model_config"]
    host.file.write_bytes(json.dumps({"model_config": dict(reversed(model.items()))}).encode())


def _link_to_another(host: Host) -> None:
    (host.project / "elsewhere.json").write_bytes(NEW)
    host.file.unlink()
    host.file.symlink_to("elsewhere.json")


def _over_by_rename(host: Host) -> None:
    (host.project / "new").write_bytes(NEW)
    os.utime(host.project / "new", ns=(host.file.stat().st_mtime_ns,) * 2)
    (host.project / "new").rename(host.file)


def _same_size_and_time(host: Host) -> None:
    before = host.file.stat()
    host.file.write_bytes(NEW)
    os.utime(host.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert host.file.stat().st_size == before.st_size


OPERATORS_FILE = [
    changed("another digest under the same name", NEW, "changed Tiny", DIGEST, OTHER_DIGEST),
    changed("another digest by one digit", plain_form(verification_sha256=DIGEST[:-1] + "0"), "changed Tiny", DIGEST),
    changed(
        "the same digest from another origin", plain_form(download_source="https://evil.org/t.gguf"), "https://evil.org"
    ),
    changed("the same digest under another name", plain_form(model_name="Tony"), "model_name: Tiny -> Tony"),
    changed("another file name", plain_form(file_name="tony.gguf"), "file_name", "tony.gguf"),
    changed(
        "another fallback",
        plain_form(ipfs_fallback_hash="QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n"),
        "ipfs_fallback_hash",
    ),
    changed("a size that was not there", plain_form(size_bytes=5), "size_bytes"),
    changed("a model added", list_form(entry(), other_entry()), "added Other"),
    changed("another model in its place", list_form(other_entry()), "removed Tiny", "added Other"),
    changed("the same model in the other form", list_form(entry()), "formatting"),
    changed("the digest in upper case", plain_form(verification_sha256=DIGEST.upper()), "formatting"),
    changed("a line break behind the file", OLD + b"\n", "formatting"),
    changed("a space in the file", OLD.replace(b": ", b":  ", 1), "formatting"),
    changed("a letter as an escape", OLD.replace(b"Tiny", b"\\u0054iny"), "formatting"),
    Deed("the keys in another order", _reordered, (CHANGED, "formatting")),
    Deed("a link to another file in the file's place", _link_to_another, (CHANGED, OTHER_DIGEST)),
    Deed("another file renamed over it", _over_by_rename, (CHANGED, OTHER_DIGEST)),
    Deed("other bytes of the same size and time", _same_size_and_time, (CHANGED, OTHER_DIGEST)),
]


@pytest.mark.parametrize("attack", OPERATORS_FILE, ids=sentence)
def test_another_operators_file_stops_the_start_and_shows_the_difference(tmp_path: Path, attack: Deed) -> None:
    running = Running(Host(tmp_path))
    attack.do(running.host)
    speaks(running.host.refused(**attack.environ), *attack.says)
    running.is_unmoved()


# The whole history is accepted by a person first: OLD, then NEW. Going back needs a person again.
ROLLBACKS = [
    Deed("a rollback to the genesis before", written(OLD), (CHANGED, OTHER_DIGEST, DIGEST)),
    Deed(
        "a rollback by the copy of a backup", lambda host: shutil.copy2(host.project / "backup", host.file), (CHANGED,)
    ),
    Deed(
        "a rollback of the digest alone",
        written(NEW.replace(OTHER_DIGEST.encode(), DIGEST.encode())),
        (CHANGED, DIGEST),
    ),
]


@pytest.mark.parametrize("attack", ROLLBACKS, ids=sentence)
def test_an_older_genesis_is_not_taken_though_it_was_accepted_once(tmp_path: Path, attack: Deed) -> None:
    host = Host(tmp_path)
    Running(host)
    shutil.copy2(host.file, host.project / "backup")
    host.file.write_bytes(NEW)
    host.accept()
    watch = TrustWatch(host.layout)

    attack.do(host)

    speaks(host.refused(), *attack.says)
    assert watch.poll() is None
    assert read_trust(host.layout).digests == {OTHER_DIGEST}


def _both_gone(host: Host) -> None:
    host.layout.genesis.unlink()
    host.layout.accepted.unlink()


def _linked(host: Host) -> None:
    host.layout.genesis.rename(host.project / "elsewhere.json")
    host.layout.genesis.symlink_to(host.project / "elsewhere.json")


def _accepted_says(host: Host, **changes: object) -> None:
    document = json.loads(host.layout.accepted.read_bytes())
    host.layout.accepted.write_text(json.dumps({**document, **changes}))


def _piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _foldered(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _changed_record(host: Host, change: Callable[[bytes], bytes]) -> None:
    host.layout.accepted.write_bytes(change(host.layout.accepted.read_bytes()))


# The operator's file is another one (NEW) throughout, so that nothing that is lost can be made good from it.
TRUST = [
    Deed("the accepted bytes exchanged", lambda host: host.layout.genesis.write_bytes(EVIL), (DISAGREE,)),
    Deed(
        "one bit of the accepted bytes",
        lambda host: host.layout.genesis.write_bytes(OLD.replace(b"Tiny", b"Tiny"[:3] + b"x")),
        (DISAGREE,),
    ),
    Deed("the accepted bytes cut short", lambda host: os.truncate(host.layout.genesis, 40), (DISAGREE,)),
    Deed("the accepted bytes emptied", lambda host: os.truncate(host.layout.genesis, 0), (DISAGREE,)),
    Deed("the accepted bytes and a line break", lambda host: host.layout.genesis.write_bytes(OLD + b"\n"), (DISAGREE,)),
    Deed(
        "the accepted bytes beyond every limit",
        lambda host: os.truncate(host.layout.genesis, MAX_GENESIS_BYTES + 1),
        (DISAGREE,),
    ),
    Deed("the accepted copy removed", lambda host: host.layout.genesis.unlink(), (DISAGREE,)),
    Deed("the accepted copy behind a link", _linked, (DISAGREE,)),
    Deed("a named pipe for the accepted copy", lambda host: _piped(host.layout.genesis), (DISAGREE,)),
    Deed("a directory for the accepted copy", lambda host: _foldered(host.layout.genesis), (DISAGREE,)),
    Deed("the record removed", lambda host: host.layout.accepted.unlink(), (DISAGREE,)),
    Deed("the record of another digest", lambda host: _accepted_says(host, sha256=sha256(EVIL)), (DISAGREE,)),
    Deed(
        "the record's digest in upper case", lambda host: _accepted_says(host, sha256=sha256(OLD).upper()), (DISAGREE,)
    ),
    Deed("a list for the record's digest", lambda host: _accepted_says(host, sha256=[sha256(OLD)]), (DISAGREE,)),
    Deed("the record cut short", lambda host: _changed_record(host, lambda raw: raw[:-4]), (DISAGREE,)),
    Deed("the record emptied", lambda host: _changed_record(host, lambda _: b""), (DISAGREE,)),
    Deed("a list for the record", lambda host: _changed_record(host, lambda raw: b"[" + raw + b"]"), (DISAGREE,)),
    Deed("a record beyond 64 KiB", lambda host: _changed_record(host, lambda raw: raw.ljust(70_000)), (DISAGREE,)),
    Deed("a named pipe for the record", lambda host: _piped(host.layout.accepted), (DISAGREE,)),
    Deed("both gone from a store that was in use", _both_gone, (GONE,)),
    Deed("the whole of trust/ gone", lambda host: shutil.rmtree(host.layout.trust), (GONE,)),
    Deed("trust/ moved away", lambda host: host.layout.trust.rename(host.layout.root / "elsewhere"), (GONE,)),
]


@pytest.mark.parametrize("attack", TRUST, ids=sentence)
def test_a_broken_pair_is_never_made_good_by_another_file_and_what_runs_goes_on(
    tmp_path: Path, attack: Deed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_module, "ACCEPTANCE_SECONDS", 0.01)  # nobody is between two writes here
    running = Running(Host(tmp_path))
    running.host.file.write_bytes(NEW)
    attack.do(running.host)

    speaks(running.host.refused(), *attack.says, "r3mes genesis accept")
    running.goes_on()
    with pytest.raises(StoreError) as refused:  # a service that starts now
        TrustWatch(running.host.layout)
    speaks(refused.value, "r3mes genesis accept")


STORE = [
    Deed(
        "a store of another kind",
        lambda host: host.layout.store_json.write_text('{"format": 1, "kind": "container"}'),
        ("container store",),
    ),
    Deed(
        "a store of a newer format",
        lambda host: host.layout.store_json.write_text('{"format": 2, "kind": "host"}'),
        ("store format 2",),
    ),
    Deed(
        "a store of a format that is true",
        lambda host: host.layout.store_json.write_text('{"format": true, "kind": "host"}'),
        ("cannot be read",),
    ),
    Deed("a store whose kind was cut short", lambda host: os.truncate(host.layout.store_json, 9), ("cannot be read",)),
    Deed("a named pipe for the store's kind", lambda host: _piped(host.layout.store_json), ("cannot be read",)),
    Deed("a host store taken for a container's", lambda _: None, ("host store",), {"R3MES_STORE_KIND": "container"}),
]


@pytest.mark.parametrize("attack", STORE, ids=sentence)
def test_a_store_that_is_not_the_one_it_was_is_refused(tmp_path: Path, attack: Deed) -> None:
    running = Running(Host(tmp_path))
    attack.do(running.host)
    speaks(running.host.refused(**attack.environ), *attack.says)
    running.accepts_no(*attack.says, **attack.environ)
    running.is_unmoved()


@dataclass(frozen=True)
class Staging:
    """Something done while NEW is staged; the operator's file is `operator`, and a start says `says`, or goes on."""

    attacks: str
    do: Callable[[Host], object]
    says: tuple[str, ...] = ()
    operator: bytes = NEW


def _relinked(host: Host) -> None:
    host.layout.next_genesis.rename(host.project / "next.json")
    host.layout.next_genesis.symlink_to(host.project / "next.json")


STAGED = [
    Staging("the staged file exchanged", lambda host: host.layout.next_genesis.write_bytes(EVIL), (CHANGED,)),
    Staging(
        "the staged file exchanged and the operator's with it",
        lambda host: host.layout.next_genesis.write_bytes(EVIL),
        (),
        EVIL,
    ),
    Staging("the operator's file exchanged after staging", lambda _: None, (CHANGED,), EVIL),
    Staging("the staged file cut short", lambda host: os.truncate(host.layout.next_genesis, 40), (CHANGED,)),
    Staging("the staged file behind a link", _relinked, (CHANGED,)),
    Staging("a named pipe for the staged file", lambda host: _piped(host.layout.next_genesis), (CHANGED,)),
    Staging("the staged file removed", lambda host: host.layout.next_genesis.unlink(), (CHANGED,)),
]


@pytest.mark.parametrize("attack", STAGED, ids=sentence)
def test_what_is_staged_is_never_what_runs(tmp_path: Path, attack: Staging) -> None:
    host = Host(tmp_path)
    running = Running(host)
    host.file.write_bytes(NEW)
    host.accept(staged=True)
    watch = TrustWatch(host.layout)

    attack.do(host)
    host.file.write_bytes(attack.operator)

    if attack.says:
        speaks(host.refused(), *attack.says)
    else:
        host.start()
    watch.poll()
    for trust in (watch.current, read_trust(host.layout)):
        assert trust.genesis == running.genesis
    # Whoever accepts now accepts the operator's file, whatever was staged.
    host.accept()
    assert host.layout.genesis.read_bytes() == attack.operator


def test_an_operators_file_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    running = Running(Host(tmp_path))
    running.host.file.unlink()
    running.host.start()
    running.is_unmoved()


def test_accepted_bytes_that_do_not_parse_stop_who_starts_and_not_who_runs(tmp_path: Path) -> None:
    running = Running(Host(tmp_path))
    running.host.layout.genesis.write_bytes(b"{}")
    _accepted_says(running.host, sha256=sha256(b"{}"))

    running.goes_on()
    with pytest.raises(GenesisError, match=r"trust/genesis\.json"):
        TrustWatch(running.host.layout)
    speaks(running.host.refused(), CHANGED)


def test_a_whole_pair_exchanged_by_its_owner_is_found_by_the_next_start(tmp_path: Path) -> None:
    host = Host(tmp_path)
    running = Running(host)
    host.layout.genesis.write_bytes(EVIL)
    _accepted_says(host, sha256=sha256(EVIL))

    speaks(host.refused(), CHANGED, DIGEST)
    # The limit that docs/trust.md states: who may write the pair is believed by who runs.
    taken = running.watch.poll()
    assert taken is not None
    assert taken.genesis.by_digest(DIGEST) is None


CASES = [*OPERATORS_FILE, *ROLLBACKS, *TRUST, *STORE, *STAGED]
