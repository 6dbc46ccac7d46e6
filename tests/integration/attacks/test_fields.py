"""Attacks by the fields of the plain forms: a wrong value, and a right value that someone takes for another one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from shared.genesis.fields import MAX_FILE_NAME, MAX_NAME, MAX_URL
from shared.store.trust import read_trust
from tests.support.attacks import Running, WrongFile, names, sentence, speaks, spelled, withstands
from tests.support.geneses import ABSENT, DIGEST, OTHER_DIGEST, list_form, other_entry, plain_form
from tests.support.genesis_host import Host

CID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"


def wrong(attacks: str, name: str, value: object, found: str) -> WrongFile:
    return WrongFile(attacks, plain_form(**{name: value}), f"model_config.{name}", found)


def digest(attacks: str, value: object, found: str = "") -> WrongFile:
    return wrong(attacks, "verification_sha256", value, found or json.dumps(value).strip('"')[:60])


def file_name(attacks: str, value: object, found: str = "") -> WrongFile:
    return wrong(attacks, "file_name", value, found or ascii(value))


def url(attacks: str, value: object, found: str = "") -> WrongFile:
    return wrong(attacks, "download_source", value, found or ascii(value))


def number(attacks: str, name: str, text: str, found: str) -> WrongFile:
    return WrongFile(attacks, spelled(name, text), f"model_config.{name}", found)


def space(attacks: str, text: str, found: str = "") -> WrongFile:
    return number(attacks, "required_disk_space_gb", text, found or text)


def size(attacks: str, text: str, found: str = "") -> WrongFile:
    return number(attacks, "size_bytes", text, found or text)


DIGESTS = [
    digest("a digest of 63 digits", DIGEST[:-1]),
    digest("a digest of 65 digits", DIGEST + "0", DIGEST + "0"),
    digest("a digest with a space before it", " " + DIGEST),
    digest("a digest with a space behind it", DIGEST + " "),
    digest("a digest with a line break behind it", DIGEST + "\n"),
    digest("a digest with a NUL in it", DIGEST[:32] + "\x00" + DIGEST[33:], "\\x00"),
    digest("a digest of full-width digits", "\uff11\uff12" * 32, "\\uff11"),
    digest("a digest with one Arabic digit", "\u0661" + DIGEST[1:], "\\u0661"),
    digest("a digest with a Cyrillic letter", "\u0430" + DIGEST[1:], "\\u0430"),
    digest("a digest that ends in an invisible space", DIGEST + "\u200b", DIGEST[:60]),
    digest("a digest with 0x before it", "0x" + DIGEST),
    digest("a digest with its algorithm before it", "sha256:" + DIGEST),
    digest("a digest in base64", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
    digest("an MD5 for a digest", "d41d8cd98f00b204e9800998ecf8427e"),
    digest("a SHA-512 for a digest", hashlib.sha512(b"x").hexdigest(), "128 characters"),
    digest("the digest of an empty file", hashlib.sha256(b"").hexdigest(), "the digest of an empty file"),
    digest("the placeholder of a template", "YOUR_SHA256_HASH_HERE", "a placeholder"),
    digest("a digest of zeros", "0" * 64, "one character repeated"),
    digest("a digest of a repeated pattern", "deadbeef" * 8, "a repeated pattern"),
    digest("a digest that is empty", "", "which is empty"),
    digest("a digest that is a number", 10**63, "1000"),
    digest("two digests in a list", [DIGEST, OTHER_DIGEST], "a list"),
    digest("a digest that is null", None, "null"),
    digest("a genesis without a digest", ABSENT, "no such key"),
]

FILE_NAMES = [
    file_name("a path out of the model's folder", "../tiny.gguf"),
    file_name("a path out of it from below", "a/../../tiny.gguf"),
    file_name("a path out of it by an escape", "..%2ftiny.gguf"),
    file_name("an absolute path", "/etc/cron.d/tiny.gguf"),
    file_name("a folder", "sub/tiny.gguf"),
    file_name("a path with backslashes", "..\\tiny.gguf"),
    file_name("a drive of Windows", "C:\\tiny.gguf"),
    file_name("a home folder", "~/tiny.gguf"),
    file_name("a NUL that cuts the name short", "../x\x00.gguf"),
    file_name("a line break in the file name", "tiny\n.gguf"),
    file_name("an escape sequence in the file name", "\x1b[2Jtiny.gguf"),
    file_name("a hidden file", ".tiny.gguf"),
    file_name("a file name that is an option", "--model.gguf"),
    file_name("the extension alone", ".gguf"),
    file_name("dots alone", "..gguf"),
    file_name("a space behind the file name", "tiny.gguf "),
    file_name("a space before the file name", " tiny.gguf"),
    file_name("another extension", "tiny.safetensors"),
    file_name("a program with a harmless first extension", "tiny.gguf.sh"),
    file_name("an extension in upper case", "tiny.GGUF"),
    file_name("a Cyrillic letter in the file name", "t\u0456ny.gguf"),
    file_name("a slash of full width", "..\uff0ftiny.gguf"),
    file_name("a division slash", "..\u2215tiny.gguf"),
    file_name("a dot that is a one dot leader", "\u2024\u2024\u2215tiny.gguf"),
    file_name("a letter and its accent apart", "tin\u0065\u0301.gguf"),
    file_name("a right-to-left override", "tiny\u202effugg.gguf"),
    file_name("an invisible joiner", "tiny\u200d.gguf"),
    file_name("a lone surrogate in the file name", "tiny\udc80.gguf"),
    file_name("a name that no file system takes", "a" * (MAX_FILE_NAME - 4) + ".gguf", "256 characters"),
    file_name("the first part of a split model", "tiny-00001-of-00003.gguf", "one part of a split model"),
    file_name("a file name that is a list", ["tiny.gguf"], "a list"),
    file_name("a file name that is null", None, "null"),
]

URLS = [
    url("a URL with a name and a password", "https://me:hunter2@host.org/t.gguf", "a URL with user info"),
    url("a host that is only the user", "https://huggingface.co@evil.org/t.gguf", "a URL with user info"),
    url("a fragment", "https://host.org/t.gguf#sha256"),
    url("a file of this host", "file:///etc/shadow"),
    url("a script", "javascript:alert(1)"),
    url("the bytes in the URL itself", "data:application/octet-stream;base64,R0dVRg=="),
    url("another protocol", "gopher://127.0.0.1:6379/_FLUSHALL"),
    url("a protocol in upper case", "FTP://host.org/t.gguf"),
    url("a URL without protocol", "//host.org/t.gguf"),
    url("a missing host", "https:///t.gguf"),
    url("a port without a host", "https://:443/t.gguf"),
    url("a port beyond all", "https://host.org:65536/t.gguf"),
    url("port zero", "https://host.org:0/t.gguf"),
    url("a space in the URL", "https://host.org/t .gguf"),
    url("a space before the URL", " https://host.org/t.gguf"),
    url("a header behind a line break", "https://host.org/t.gguf\r\nHost: evil.org"),
    url("a NUL in the URL", "https://host.org/t\x00.gguf"),
    url("a backslash before the host's end", "https://evil.org\\@host.org/t.gguf"),
    url("a Cyrillic letter in the host", "https://hugg\u0456ngface.co/t.gguf"),
    url("a full stop of another script", "https://huggingface\u3002co/t.gguf"),
    url("an escaped host", "https://%65vil.org/t.gguf"),
    url("loopback in one number", "https://2130706433/t.gguf"),
    url("loopback in hex", "https://0x7f.1/t.gguf"),
    url("loopback in octal", "https://0177.0.0.1/t.gguf"),
    url("a zone behind a link-local address", "https://[fe80::1%25eth0]/t.gguf"),
    url("an unclosed bracket", "https://[::1/t.gguf"),
    url("a URL longer than any proxy takes", "https://host.org/" + "a" * MAX_URL, "2065 characters"),
    url("a URL that is an object", {"url": "https://host.org/t.gguf"}, "an object"),
]

# Right as URLs: the address policy of the operator refuses them, and names the model.
ADDRESSES = [
    WrongFile(attacks, plain_form(download_source=source), "download_source of Tiny", found)
    for attacks, source, found in (
        ("plain http", "http://host.org/t.gguf", "plain http to host.org"),
        ("the address of cloud metadata", "https://169.254.169.254/t.gguf", "link-local address 169.254.169.254"),
        ("the same address within IPv6", "https://[::ffff:169.254.169.254]/t.gguf", "link-local address"),
        ("loopback", "https://127.0.0.1/t.gguf", "127.0.0.1, which is not public"),
        ("loopback of IPv6", "https://[::1]:443/t.gguf", "::1, which is not public"),
        ("loopback by name", "https://localhost/t.gguf", "localhost, which is not public"),
        ("this host by the null address", "https://0.0.0.0/t.gguf", "0.0.0.0, which is not public"),
        ("a neighbour in the private network", "https://10.0.0.1/t.gguf", "10.0.0.1, which is not public"),
    )
]

NUMBERS = [
    space("no space", "0"),
    space("negative space", "-1"),
    space("minus zero", "-0.0"),
    space("space beyond every float", "1e400", "inf"),
    space("space that rounds to nothing", "1e-400", "0.0"),
    space("less space than a byte", "1e-10"),
    space("more space than a petabyte", "1000001"),
    space("space of 400 digits", "1" + "0" * 400, "a number of more than 72 digits"),
    space("space that is true", "true"),
    space("space in a string", '"0.1"', "'0.1'"),
    space("space that is null", "null"),
    space("space in a list", "[0.1]", "a list"),
    size("a size of zero", "0"),
    size("a negative size", "-1"),
    size("a size with an exponent", "1e8", "100000000.0"),
    size("a size with a fraction of zero", "5.0"),
    size("a size of 2^64", "18446744073709551616"),
    size("a size of 300 digits", "9" * 300, "a number of more than 72 digits"),
    size("a size that is true", "true"),
    size("a size in a string", '"5"', "'5'"),
    size("a size that is null", "null"),
    size("a size one byte above the required space", "100000001"),
]

NAMES_AND_CIDS = [
    wrong("an empty model name", "model_name", "", "''"),
    wrong("a control character in the model name", "model_name", "Tiny\x07", "\\x07"),
    wrong("a model name that writes to the terminal", "model_name", "\x1b]0;x\x07Tiny", "\\x1b"),
    wrong("a model name that ends a label of the metrics", "model_name", 'Tiny"} 1\n', '"'),
    wrong("a model name with a look-alike letter", "model_name", "Tin\u0443", "\\u0443"),
    wrong("a model name with a space behind it", "model_name", "Tiny ", "'Tiny '"),
    wrong("a model name that is too long", "model_name", "x" * (MAX_NAME + 1), "129 characters"),
    wrong("a model name that is a number", "model_name", 1, "1"),
    wrong("a CID that was cut short", "ipfs_fallback_hash", CID[:-2], CID[:-2]),
    wrong("a CID with a path", "ipfs_fallback_hash", f"{CID}/../x", "/../x"),
    wrong("a CID in a URL", "ipfs_fallback_hash", f"ipfs://{CID}", "ipfs://"),
    wrong("the CID of a template", "ipfs_fallback_hash", "QmYourHashHere", "QmYourHashHere"),
    wrong("a CID with a line break", "ipfs_fallback_hash", CID + "\n", "\\n"),
    wrong("a CID that is null", "ipfs_fallback_hash", None, "null"),
]

WRONG_VALUES = [*DIGESTS, *FILE_NAMES, *URLS, *NUMBERS, *NAMES_AND_CIDS]
CASES = [*WRONG_VALUES, *ADDRESSES]


@pytest.mark.parametrize("attack", WRONG_VALUES, ids=sentence)
def test_a_field_that_does_not_follow_its_rule_is_refused_by_its_name(tmp_path: Path, attack: WrongFile) -> None:
    withstands(Host(tmp_path), attack)


@pytest.mark.parametrize("attack", ADDRESSES, ids=sentence)
def test_an_address_that_the_operator_did_not_allow_is_refused(tmp_path: Path, attack: WrongFile) -> None:
    host = Host(tmp_path)
    host.file.write_bytes(attack.raw)
    names(host.refused(), host, attack)
    assert not host.layout.root.exists()

    running = Running(host)
    host.file.write_bytes(attack.raw)
    speaks(host.refused(), "is not the genesis that was accepted", "changed Tiny")
    running.accepts_no(attack.field, attack.found)
    running.is_unmoved()


def test_a_password_in_a_url_is_not_shown(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.file.write_bytes(plain_form(download_source="https://me:hunter2@host.org/t.gguf"))
    assert "hunter2" not in host.refused().diagnostics()


CONTROLS = [
    ("a digest in upper case", plain_form(verification_sha256=DIGEST.upper())),
    ("a digest in mixed case", plain_form(verification_sha256=DIGEST[:32].upper() + DIGEST[32:])),
    ("a size that fills the required space", spelled("size_bytes", "100000000")),
    ("space with an exponent", spelled("required_disk_space_gb", "1e-1")),
    ("a public address", plain_form(download_source="https://1.1.1.1/t.gguf")),
    ("a CID", plain_form(ipfs_fallback_hash=CID)),
    ("the longest file name", plain_form(file_name="a" * (MAX_FILE_NAME - 5) + ".gguf")),
    ("a second model", list_form(other_entry(), {**json.loads(plain_form())["model_config"]})),
]


@pytest.mark.parametrize("raw", [raw for _, raw in CONTROLS], ids=[what for what, _ in CONTROLS])
def test_what_is_right_is_accepted_and_means_the_same_digest(tmp_path: Path, raw: bytes) -> None:
    host = Host(tmp_path)
    host.file.write_bytes(raw)
    host.start()
    pin = read_trust(host.layout).genesis.by_digest(DIGEST)
    assert pin is not None
    assert pin.model_name == "Tiny"
