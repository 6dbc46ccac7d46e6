"""Signatures over a genesis: what the real minisign made verifies, and every way to spoil it is refused by name."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.acceptance.minisign import SignatureRefusedError, parse_public_key, parse_signature, verify
from tests.support.minisign_vectors import (
    GENESIS,
    flipped,
    line,
    public_key,
    replaced,
    signature,
    with_bytes,
    with_line,
)
from tests.support.programs import need

KEY = parse_public_key(public_key())


def check(content: bytes, message: bytes = GENESIS) -> None:
    verify(KEY, parse_signature(content), [message])


def pieces(message: bytes) -> Iterator[bytes]:
    return (message[start : start + 1_000_000] for start in range(0, len(message), 1_000_000))


@pytest.mark.parametrize("name", ["prehashed", "legacy"])
def test_a_signature_of_the_real_program_verifies(name: str) -> None:
    check(signature(name))
    assert parse_signature(signature(name)).trusted_comment == f"genesis of the tests, {name}"


GOOD_FORMS = [
    ("another untrusted comment", with_line(0, "untrusted comment: anything at all")),
    ("Windows line ends", signature().replace(b"\n", b"\r\n")),
    ("no last line end", signature().rstrip(b"\n")),
]


@pytest.mark.parametrize("content", [case[1] for case in GOOD_FORMS], ids=[case[0] for case in GOOD_FORMS])
def test_what_nobody_signs_may_differ(content: bytes) -> None:
    check(content)


SPOILT = [
    ("a bit of the signature", with_bytes(1, flipped(40)), "not over these bytes"),
    ("the last bit of the signature", with_bytes(1, flipped(73)), "not over these bytes"),
    ("a bit of the key id", with_bytes(1, flipped(5)), "a signature of the key"),
    ("another key", signature("stranger"), "a signature of the key 86E3B90CB7238945"),
    ("another key under this key's id", with_bytes(1, replaced(2, KEY.key_id), "stranger"), "not over these bytes"),
    ("prehashed, relabelled as raw", with_bytes(1, replaced(0, b"Ed")), "not over these bytes"),
    ("raw, relabelled as prehashed", with_bytes(1, replaced(0, b"ED"), "legacy"), "not over these bytes"),
    ("an algorithm of tomorrow", with_bytes(1, replaced(0, b"Ee")), "algorithm 'Ee'"),
    ("a changed trusted comment", with_line(2, "trusted comment: genesis of 2030"), "trusted comment"),
    ("white space after the trusted comment", with_line(2, line(2) + " "), "trusted comment"),
    ("the comment of another signature", with_line(2, line(2, "other-comment")), "trusted comment"),
    ("the global signature of another one", with_line(3, line(3, "other-comment")), "trusted comment"),
    ("a bit of the global signature", with_bytes(3, flipped(0)), "trusted comment"),
    ("the signature in the global one's place", with_line(3, line(1)), "74 bytes in the fourth line"),
    ("the global signature in the first one's place", with_line(1, line(3)), "64 bytes in the second line"),
    ("a short signature", with_line(1, base64.b64encode(bytes(73)).decode()), "73 bytes in the second line"),
    ("bad base64", with_line(1, line(1)[:-4] + "!!!="), "not base64"),
    ("base64 with spaces", with_line(1, line(1) + " "), "not base64"),
    ("base64 that is not canonical", with_line(1, line(1)[:-2] + "h="), "not base64"),
    ("base64 that is not ASCII", with_line(1, "\u0416" + line(1)[1:]), "not base64"),
    ("trailing garbage", signature() + b"more\n", "5 lines"),
    ("an empty fifth line", signature() + b"\n", "5 lines"),
    ("a second signature behind", signature() + signature("legacy"), "8 lines"),
    ("no trusted comment", b"".join(signature().splitlines(keepends=True)[:2]), "2 lines"),
    ("no untrusted comment", b"".join(signature().splitlines(keepends=True)[1:]), "3 lines"),
    ("an empty file", b"", "1 lines"),
    ("another first line", with_line(0, "comment: x"), "first line"),
    ("another third line", with_line(2, "untrusted comment: x"), "third line"),
    ("bytes that are not UTF-8", b"\xff" + signature(), "UTF-8"),
    ("NUL bytes", signature().replace(b"RUS", b"RU\0"), "not base64"),
    ("a huge file", b"untrusted comment: " + b"x" * 5000, "more than 4096"),
    ("the public key's file", b"untrusted comment: x\n" + public_key().encode() + b"\n", "2 lines"),
]


@pytest.mark.parametrize(("what", "content", "found"), SPOILT, ids=[case[0] for case in SPOILT])
def test_a_spoilt_signature_is_refused_by_name(what: str, content: bytes, found: str) -> None:
    with pytest.raises(SignatureRefusedError) as refused:
        check(content)
    assert found in refused.value.found, what
    assert refused.value.wanted


OTHER_BYTES = [
    ("another genesis", GENESIS.replace(b"Tiny", b"Tony")),
    ("white space at the end", GENESIS + b" "),
    ("a missing line end", GENESIS.rstrip(b"\n")),
    ("other line ends", GENESIS.replace(b"\n", b"\r\n")),
    ("nothing", b""),
]


@pytest.mark.parametrize("name", ["prehashed", "legacy"])
@pytest.mark.parametrize("message", [case[1] for case in OTHER_BYTES], ids=[case[0] for case in OTHER_BYTES])
def test_a_right_signature_over_other_bytes_is_refused(message: bytes, name: str) -> None:
    with pytest.raises(SignatureRefusedError, match="not over these bytes"):
        check(signature(name), message)


WRONG_KEYS = [
    ("nothing", ""),
    ("the first line", "untrusted comment: minisign public key 84DA20379E55B9BA"),
    ("both lines", f"untrusted comment: x\n{public_key()}"),
    ("a short key", public_key()[:-4]),
    ("a long key", public_key() + "AAAA"),
    ("another algorithm", base64.b64encode(b"ED" + base64.b64decode(public_key())[2:]).decode()),
    ("a signature", line(1)),
    ("bad base64", public_key()[:-1] + "!"),
]


@pytest.mark.parametrize("text", [case[1] for case in WRONG_KEYS], ids=[case[0] for case in WRONG_KEYS])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="minisign public key"):
        parse_public_key(text)


@given(st.binary(max_size=600))
def test_no_bytes_crash_the_reader(content: bytes) -> None:
    with pytest.raises(SignatureRefusedError):
        parse_signature(content)


@pytest.mark.parametrize("options", [[], ["-l"]], ids=["prehashed", "legacy"])
def test_what_minisign_signs_here_and_now_verifies(tmp_path: Path, options: list[str]) -> None:
    need("minisign")
    message = tmp_path / "genesis.json"
    message.write_bytes(b"x" * 3_000_000)
    public, secret = tmp_path / "key.pub", tmp_path / "key"
    subprocess.run(["minisign", "-G", "-W", "-p", public, "-s", secret], check=True, capture_output=True)
    subprocess.run(["minisign", "-S", *options, "-s", secret, "-m", message], check=True, capture_output=True)
    key = parse_public_key(public.read_text().splitlines()[1])
    made = parse_signature((tmp_path / "genesis.json.minisig").read_bytes())

    verify(key, made, pieces(message.read_bytes()))

    assert made.is_prehashed is not bool(options)
    with pytest.raises(SignatureRefusedError):
        verify(key, made, pieces(message.read_bytes() + b"x"))
