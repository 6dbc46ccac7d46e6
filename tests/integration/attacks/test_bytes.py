"""Attacks by bytes that are not exactly the JSON of a genesis, and by what is no file in the file's place."""

from __future__ import annotations

import gzip
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.errors import GenesisError
from shared.genesis import MAX_PLAIN_BYTES, parse_genesis
from shared.genesis.strict_json import join
from tests.support.attacks import OLD, Running, WrongFile, beside, sentence, speaks, spelled, withstands
from tests.support.genesis_host import Host

MEGABYTES_10 = 10_000_000
SYNTAX = "a syntax error at line"
NAME = "model_config.model_name"
LONG_KEY = "k" * 60_000

ENCODINGS = [
    WrongFile("a UTF-8 byte order mark before the file", b"\xef\xbb\xbf" + OLD, "", "byte order mark"),
    WrongFile("UTF-16 with a byte order mark", OLD.decode().encode("utf-16"), "", "byte order mark"),
    WrongFile("big-endian UTF-16", b"\xfe\xff" + OLD.decode().encode("utf-16-be"), "", "byte order mark"),
    WrongFile("UTF-16 without a byte order mark", OLD.decode().encode("utf-16-le"), "", SYNTAX),
    WrongFile("UTF-32", OLD.decode().encode("utf-32"), "", "byte order mark"),
    WrongFile("a NUL before the file", b"\x00" + OLD, "", SYNTAX),
    WrongFile("a NUL behind the file", OLD + b"\x00", "", SYNTAX),
    WrongFile("a NUL that cuts a string short", OLD.replace(b"Tiny", b"Ti\x00ny"), "", SYNTAX),
    WrongFile("a NUL between two tokens", OLD.replace(b", ", b",\x00", 1), "", SYNTAX),
    WrongFile("a Latin-1 letter", OLD.replace(b"Tiny", b"Tin\xfd"), "", "not UTF-8"),
    WrongFile("an overlong dot", OLD.replace(b"tiny.gguf", b"tiny\xc0\xaegguf"), "", "not UTF-8"),
    WrongFile("an overlong slash", OLD.replace(b"tiny.gguf", b"x\xe0\x80\xaftiny.gguf"), "", "not UTF-8"),
    WrongFile("a surrogate in UTF-8", OLD.replace(b"Tiny", b"T\xed\xa0\x80"), "", "not UTF-8"),
    WrongFile("a letter beyond Unicode", OLD.replace(b"Tiny", b"T\xf4\x90\x80\x80"), "", "not UTF-8"),
    WrongFile("half a letter at the end", OLD + b"\xe2\x82", "", "not UTF-8"),
    WrongFile("a lone surrogate by its escape", spelled("model_name", '"T\\ud800"'), NAME, "'T\\ud800'"),
    WrongFile("a compressed file", gzip.compress(OLD), "", "not UTF-8"),
]

NOT_JSON = [
    WrongFile("an empty file", b"", "", "an empty file"),
    WrongFile("a file of white space", b" \r\n\t ", "", "an empty file"),
    WrongFile("garbage behind the file", OLD + b"x", "", SYNTAX),
    WrongFile("a second genesis behind the first", OLD + OLD, "", SYNTAX),
    WrongFile("a second genesis on a line of its own", OLD + b"\n" + OLD, "", SYNTAX),
    WrongFile("a brace too many", OLD + b"}", "", SYNTAX),
    WrongFile("a comment to the line's end", OLD.replace(b", ", b", // pinned\n", 1), "", SYNTAX),
    WrongFile("a comment that hides a key", OLD.replace(b', "file_name"', b', /* */ "file_name"'), "", SYNTAX),
    WrongFile("a comment of a shell", b"# pinned\n" + OLD, "", SYNTAX),
    WrongFile("a trailing comma", OLD[:-1] + b",}", "", SYNTAX),
    WrongFile("strings in single quotes", OLD.replace(b'"', b"'"), "", SYNTAX),
    WrongFile("a key without quotes", OLD.replace(b'"model_name"', b"model_name"), "", SYNTAX),
    WrongFile("YAML", b"model_config:\n  model_name: Tiny\n", "", SYNTAX),
    WrongFile("JSON in a function call", b"genesis(" + OLD + b")", "", SYNTAX),
    WrongFile("NaN for a number", spelled("required_disk_space_gb", "NaN"), "", "NaN"),
    WrongFile("Infinity for a number", spelled("required_disk_space_gb", "Infinity"), "", "Infinity"),
    WrongFile("minus Infinity for a number", spelled("required_disk_space_gb", "-Infinity"), "", "-Infinity"),
    WrongFile("a hex number", spelled("size_bytes", "0x10"), "", SYNTAX),
    WrongFile("a number with a leading zero", spelled("size_bytes", "010"), "", SYNTAX),
    WrongFile("a number with a plus", spelled("size_bytes", "+10"), "", SYNTAX),
    WrongFile("a number with separators", spelled("size_bytes", "1_0"), "", SYNTAX),
    WrongFile("a line break in a string", OLD.replace(b"Tiny", b"Ti\nny"), "", SYNTAX),
    WrongFile("a raw tab in a string", OLD.replace(b"Tiny", b"Ti\tny"), "", SYNTAX),
    WrongFile("an escape sequence in a string", OLD.replace(b"Tiny", b"\x1b[2J"), "", SYNTAX),
    WrongFile("an escape that JSON has not", spelled("model_name", '"\\x54iny"'), "", SYNTAX),
    WrongFile("a no-break space between tokens", OLD.replace(b", ", b",\xc2\xa0", 1), "", SYNTAX),
    WrongFile("a line separator between tokens", OLD.replace(b", ", b",\xe2\x80\xa8", 1), "", SYNTAX),
    WrongFile("a form feed between tokens", OLD.replace(b", ", b",\x0c", 1), "", SYNTAX),
    WrongFile("a record separator before the file", b"\x1e" + OLD, "", SYNTAX),
]

SIZES = [
    WrongFile("64 KiB and one byte", OLD.ljust(MAX_PLAIN_BYTES + 1), "", "more than 65536 bytes"),
    WrongFile("10 MB of spaces behind the file", OLD.ljust(MEGABYTES_10), "", "more than 65536 bytes"),
    WrongFile("10 MB of spaces before the file", OLD.rjust(MEGABYTES_10), "", "more than 65536 bytes"),
    WrongFile("10 MB of a name", spelled("model_name", f'"{"x" * MEGABYTES_10}"'), "", "more than 65536 bytes"),
    WrongFile("100,000 models", b'{"models": [' + b"{}," * 100_000 + b"{}]}", "", "more than 65536 bytes"),
    WrongFile("a name that fills the file", spelled("model_name", f'"{"x" * 65_000}"'), NAME, "(65000 characters)"),
    WrongFile("lists nested by the ten thousand", b"[" * 30_000 + b"]" * 30_000, "", "nesting too deep"),
    WrongFile("objects nested by the thousand", b'{"models":' * 5_900 + b"1" + b"}" * 5_900, "", "nesting too deep"),
    WrongFile("a field nested deeply", spelled("model_name", "[" * 9_000 + "]" * 9_000), "", "nesting too deep"),
    WrongFile("a number of 60,000 digits", spelled("size_bytes", "9" * 60_000), "", "more than 600 characters"),
    WrongFile(
        "a fraction of 60,000 digits", spelled("required_disk_space_gb", "0." + "1" * 60_000), "", "600 characters"
    ),
    WrongFile("a key of 60,000 letters", beside(f'"{LONG_KEY}": 1'), join("model_config", LONG_KEY), "unknown key"),
]

TRUNCATED = [
    WrongFile(f"the file cut short after {cut} bytes of {len(OLD)}", OLD[:cut], "", SYNTAX)
    for cut in (1, 2, 16, 40, 90, 180, 270, len(OLD) - 2, len(OLD) - 1)
]

FILES = [*ENCODINGS, *NOT_JSON, *SIZES, *TRUNCATED]


@pytest.mark.parametrize("attack", FILES, ids=sentence)
def test_bytes_that_are_not_exactly_a_genesis_are_refused(tmp_path: Path, attack: WrongFile) -> None:
    withstands(Host(tmp_path), attack)


def test_the_file_is_refused_wherever_it_is_cut_short() -> None:
    for cut in range(len(OLD)):
        with pytest.raises(GenesisError):
            parse_genesis(OLD[:cut], file="genesis.json")
    assert parse_genesis(OLD, file="genesis.json").by_name("Tiny")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's name has 108 bytes at most
        try:
            listening.bind(path.name)
        finally:
            os.chdir(here)


@dataclass(frozen=True)
class Place:
    """What stands in the place of the operator's file, though a genesis is a regular file."""

    attacks: str
    put: Callable[[Path], object]
    found: str


PLACES = [
    Place("a named pipe in the file's place", os.mkfifo, "not a regular file"),
    Place("a directory in the file's place", Path.mkdir, "Is a directory"),
    Place("a socket in the file's place", _socket, "cannot be read"),
    Place("an endless device behind a link", lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    Place("an empty device behind a link", lambda path: path.symlink_to("/dev/null"), "not a regular file"),
    Place("a link to itself", lambda path: path.symlink_to(path), "cannot be read"),
    Place("a link to its own folder", lambda path: path.symlink_to(path.parent), "Is a directory"),
    Place("a link to a file of another kind", lambda path: path.symlink_to("/proc/self/status"), SYNTAX),
]


@pytest.mark.parametrize("attack", PLACES, ids=sentence)
def test_what_is_no_file_in_the_files_place_is_refused_without_waiting(tmp_path: Path, attack: Place) -> None:
    host = Host(tmp_path)
    attack.put(host.file)
    speaks(host.refused(), str(host.file), attack.found)
    assert not host.layout.root.exists()
    host.file.rmdir() if host.file.is_dir() and not host.file.is_symlink() else host.file.unlink()

    running = Running(host)
    host.file.unlink()
    attack.put(host.file)
    speaks(host.refused(), str(host.file), attack.found)
    running.accepts_no(attack.found)
    running.is_unmoved()


CASES = [*FILES, *PLACES]
