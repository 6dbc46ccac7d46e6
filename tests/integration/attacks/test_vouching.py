"""Attacks on who vouches for a genesis: the digest that the operator got another way, and the publisher's signature."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shared.acceptance import StartAction
from tests.support.attacks import NEW, OLD, Running, sentence, speaks
from tests.support.genesis_host import Host
from tests.support.minisign_signer import Signer

PUBLISHER, STRANGER = Signer(1), Signer(2)
IMPOSTOR = Signer(3, key_id=PUBLISHER.key_id)  # another key under the publisher's id
SIGNED = PUBLISHER.sign(OLD)
SHA256 = hashlib.sha256(OLD).hexdigest()
KEY = {"R3MES_GENESIS_PUBKEY": PUBLISHER.public_key}
DIGEST_SET = "R3MES_GENESIS_SHA256"
NOT_OVER = "a signature that is not over these bytes"


@dataclass(frozen=True)
class Vouching:
    """A right genesis (`raw`), a signature beside it or none, and settings by which it must not be taken."""

    attacks: str
    environ: Mapping[str, str]
    says: tuple[str, ...]
    signature: bytes | None = None
    raw: bytes = OLD


def pinned(attacks: str, sha256: str, *says: str, raw: bytes = OLD) -> Vouching:
    return Vouching(attacks, {DIGEST_SET: sha256}, (DIGEST_SET, *says), raw=raw)


def signed(attacks: str, signature: bytes | None, *says: str, raw: bytes = OLD, **environ: str) -> Vouching:
    return Vouching(attacks, {**KEY, **environ}, says, signature, raw)


def canonical(raw: bytes) -> str:
    """Return the digest of what the file says, not of its bytes."""
    return hashlib.sha256(json.dumps(json.loads(raw), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def line(number: int, text: str, of: bytes = SIGNED) -> bytes:
    lines = of.decode().split("\n")
    lines[number] = text
    return "\n".join(lines).encode()


DIGESTS = [
    pinned("the digest of another genesis", hashlib.sha256(NEW).hexdigest(), SHA256),
    pinned("another genesis under the right digest", SHA256, hashlib.sha256(NEW).hexdigest(), raw=NEW),
    pinned("the digest of what the file says instead of its bytes", canonical(OLD), SHA256),
    pinned("the digest of the file without its last line break", SHA256, raw=OLD + b"\n"),
    pinned(
        "the digest of the model instead of the genesis", json.loads(OLD)["model_config"]["verification_sha256"], SHA256
    ),
    pinned("half a digest", SHA256[:32]),
    pinned("a digest and a half", SHA256 + SHA256[:32]),
    pinned("a digest with its algorithm", "sha256:" + SHA256),
    pinned("a pinned digest of full-width digits", "\uff11" * 64),
    pinned("a pinned digest with a line break behind it", SHA256 + "\n"),
    pinned("two pinned digests", f"{SHA256},{hashlib.sha256(NEW).hexdigest()}"),
    pinned("a digest of zeros for none", "0" * 64, SHA256),
]

SIGNATURES = [
    signed("no signature though a key is set", None, "no such file", "genesis.json.minisig"),
    signed("the signature of a stranger", STRANGER.sign(OLD), "a signature of the key 0202020202020202"),
    signed("a stranger's signature under the publisher's id", IMPOSTOR.sign(OLD), NOT_OVER),
    signed("a right signature over other bytes", SIGNED, NOT_OVER, raw=NEW),
    signed("a right signature over the file without its last line break", SIGNED, NOT_OVER, raw=OLD + b"\n"),
    signed(
        "a right signature over the same keys in another spelling",
        SIGNED,
        NOT_OVER,
        raw=OLD.replace(b"Tiny", b"\\u0054iny"),
    ),
    signed("a signature of the digest instead of the bytes", PUBLISHER.sign(SHA256.encode()), NOT_OVER),
    signed("an Ed signature that calls itself ED", PUBLISHER.sign(OLD, legacy=True, algorithm=b"ED"), NOT_OVER),
    signed("an ED signature that calls itself Ed", PUBLISHER.sign(OLD, algorithm=b"Ed"), NOT_OVER),
    signed("a signature of another algorithm", PUBLISHER.sign(OLD, algorithm=b"RS"), "the algorithm 'RS'"),
    signed(
        "an altered trusted comment", line(2, "trusted comment: genesis of 2030"), "a trusted comment that was changed"
    ),
    signed(
        "the trusted comment of another signature",
        line(3, PUBLISHER.sign(NEW).decode().split("\n")[3]),
        "a trusted comment that was changed",
    ),
    signed(
        "a trusted comment that a stranger signed",
        line(3, STRANGER.sign(OLD).decode().split("\n")[3]),
        "a trusted comment that was changed",
    ),
    signed("a signature cut short", SIGNED[:120], "lines"),
    signed("a signature without its last line", b"\n".join(SIGNED.split(b"\n")[:3]), "3 lines"),
    signed("an empty signature", b"", "1 lines"),
    signed("a second signature behind a stranger's", STRANGER.sign(OLD) + SIGNED, "8 lines"),
    signed("a signature in UTF-16", SIGNED.decode().encode("utf-16"), "not UTF-8"),
    signed("a signature with spaces in its base64", line(1, SIGNED.decode().split("\n")[1] + " "), "not base64"),
    signed("a signature beyond every limit", SIGNED.ljust(10_000), "more than 4096 bytes"),
    signed("the public key in the signature's place", PUBLISHER.public_key.encode(), "1 lines"),
    signed(
        "the signature of a named file that is not there",
        SIGNED,
        "no such file",
        R3MES_GENESIS_SIGNATURE="other.minisig",
    ),
    Vouching(
        "a signature that is named without a key",
        {"R3MES_GENESIS_SIGNATURE": "genesis.json.minisig"},
        ("no key to check it by",),
        SIGNED,
    ),
    Vouching(
        "a public key that was cut short",
        {"R3MES_GENESIS_PUBKEY": PUBLISHER.public_key[:-4]},
        ("R3MES_GENESIS_PUBKEY",),
        SIGNED,
    ),
    Vouching(
        "two public keys in one setting",
        {"R3MES_GENESIS_PUBKEY": f"{PUBLISHER.public_key} {STRANGER.public_key}"},
        ("R3MES_GENESIS_PUBKEY",),
        SIGNED,
    ),
    signed(
        "a right digest and a stranger's signature", STRANGER.sign(OLD), "0202020202020202", R3MES_GENESIS_SHA256=SHA256
    ),
    signed("a right signature and another digest", SIGNED, DIGEST_SET, SHA256, R3MES_GENESIS_SHA256="0" * 64),
    signed("a right digest and no signature", None, "no such file", R3MES_GENESIS_SHA256=SHA256),
]

FIRST = [*DIGESTS, *SIGNATURES]


def give(host: Host, case: Vouching) -> None:
    host.file.write_bytes(case.raw)
    signature = host.file.with_name("genesis.json.minisig")
    signature.unlink(missing_ok=True)
    if case.signature is not None:
        signature.write_bytes(case.signature)


@pytest.mark.parametrize("attack", FIRST, ids=sentence)
def test_what_nobody_vouches_for_is_neither_accepted_nor_gone_on_with(tmp_path: Path, attack: Vouching) -> None:
    host = Host(tmp_path)
    give(host, attack)
    speaks(host.refused(**attack.environ), *attack.says)
    assert not host.layout.root.exists()

    running = Running(host)
    give(host, attack)
    speaks(host.refused(**attack.environ), *attack.says)
    running.accepts_no(*attack.says, **attack.environ)
    running.is_unmoved()


@dataclass(frozen=True)
class Later:
    """Something done to a host on which a signed OLD was accepted; KEY (and `environ`) stay set."""

    attacks: str
    do: Callable[[Host], object]
    says: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)


def _beside(host: Host) -> Path:
    return host.file.with_name("genesis.json.minisig")


def _operator_gone(host: Host) -> None:
    host.file.unlink()
    _beside(host).unlink()


def _record(host: Host, **changes: object) -> None:
    document = json.loads(host.layout.accepted.read_bytes())
    host.layout.accepted.write_text(json.dumps({**document, **changes}))


def _pair_exchanged(host: Host) -> None:
    _operator_gone(host)
    host.layout.genesis.write_bytes(NEW)
    _record(host, sha256=hashlib.sha256(NEW).hexdigest())


def _piped(host: Host) -> None:
    _beside(host).unlink()
    os.mkfifo(_beside(host))


def _recorded_by_a_stranger(host: Host) -> None:
    _operator_gone(host)
    _record(host, signature=STRANGER.sign(OLD).decode())


def _recorded_none(host: Host) -> None:
    _operator_gone(host)
    _record(host, signature=None)


LATER = [
    Later("the signature taken away", lambda host: _beside(host).unlink(), ("no such file",)),
    Later("a named pipe in the signature's place", _piped, ("not a regular file",)),
    Later("the signature of an older genesis on the new one", lambda host: host.file.write_bytes(NEW), (NOT_OVER,)),
    Later(
        "a new genesis that a stranger signed",
        lambda host: give(host, Vouching("", {}, (), STRANGER.sign(NEW), NEW)),
        ("0202020202020202",),
    ),
    Later(
        "another key than the one it was accepted by",
        _operator_gone,
        ("a signature of the key 0101010101010101",),
        {"R3MES_GENESIS_PUBKEY": STRANGER.public_key},
    ),
    Later("another digest once the operator's file is gone", _operator_gone, (DIGEST_SET,), {DIGEST_SET: "0" * 64}),
    Later(
        "the recorded signature exchanged", _recorded_by_a_stranger, ("as recorded at acceptance", "0202020202020202")
    ),
    Later("the recorded signature removed", _recorded_none, ("was accepted without a signature",)),
]


@pytest.mark.parametrize("attack", LATER, ids=sentence)
def test_a_signature_is_checked_at_every_start(tmp_path: Path, attack: Later) -> None:
    host = Host(tmp_path)
    _beside(host).write_bytes(SIGNED)
    running = Running(host, **KEY)

    attack.do(host)

    speaks(host.refused(**{**KEY, **attack.environ}), *attack.says)
    running.watch.poll()
    running.is_unmoved()


def test_a_pair_exchanged_with_the_operators_file_gone_does_not_pass_the_key(tmp_path: Path) -> None:
    host = Host(tmp_path)
    _beside(host).write_bytes(SIGNED)
    Running(host, **KEY)

    _pair_exchanged(host)

    speaks(host.refused(**KEY), NOT_OVER)


def test_a_right_signature_replaces_no_acceptance(tmp_path: Path) -> None:
    host = Host(tmp_path)
    _beside(host).write_bytes(SIGNED)
    running = Running(host, **KEY)

    give(host, Vouching("", {}, (), PUBLISHER.sign(NEW), NEW))

    speaks(host.refused(**KEY), "is not the genesis that was accepted", "r3mes genesis accept")
    running.is_unmoved()


def test_an_older_genesis_with_its_own_right_signature_is_no_way_back(tmp_path: Path) -> None:
    host = Host(tmp_path)
    _beside(host).write_bytes(SIGNED)
    Running(host, **KEY)
    give(host, Vouching("", {}, (), PUBLISHER.sign(NEW), NEW))
    host.accept(**KEY)

    give(host, Vouching("", {}, (), SIGNED))

    speaks(host.refused(**KEY), "is not the genesis that was accepted", "r3mes genesis accept")
    assert host.layout.genesis.read_bytes() == NEW


@pytest.mark.parametrize("legacy", [False, True], ids=["prehashed", "legacy"])
def test_what_is_vouched_for_in_every_way_is_accepted(tmp_path: Path, *, legacy: bool) -> None:
    host = Host(tmp_path)
    host.file.write_bytes(OLD)
    _beside(host).write_bytes(PUBLISHER.sign(OLD, legacy=legacy))

    assert host.start(**KEY, R3MES_GENESIS_SHA256=SHA256.upper()).action is StartAction.ACCEPT
    assert host.start(**KEY, R3MES_GENESIS_SHA256=SHA256).action is StartAction.GO_ON


CASES = [*FIRST, *LATER]
