"""The loopback origin of the demo: what Hugging Face does, over real HTTP."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests

from launcher.origin import Origin
from tests.support.waiting import wait_until

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SIZE = 1_000_003


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def origin(file: Path) -> Iterator[Origin]:
    with Origin(file) as running:
        yield running


def resolve_url(origin: Origin, name: str = "tiny.gguf", revision: str = COMMIT) -> str:
    return f"{origin.url}/org/tiny/resolve/{revision}/{name}"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_resolve_redirects_and_tells_digest_size_and_commit(origin: Origin, file: Path, method: str) -> None:
    answer = requests.request(method, resolve_url(origin), allow_redirects=False, timeout=5)
    assert answer.status_code == 302
    assert answer.headers["X-Linked-Etag"] == f'"{hashlib.sha256(file.read_bytes()).hexdigest()}"'
    assert answer.headers["X-Linked-Size"] == str(SIZE)
    assert answer.headers["X-Repo-Commit"] == COMMIT
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert "signature=" in answer.headers["Location"]


def test_a_branch_name_resolves_to_a_commit(origin: Origin) -> None:
    answer = requests.head(resolve_url(origin, revision="main"), allow_redirects=False, timeout=5)
    assert len(answer.headers["X-Repo-Commit"]) == 40


def test_the_redirect_leads_to_the_bytes_without_their_digest(origin: Origin, file: Path) -> None:
    answer = requests.get(resolve_url(origin), timeout=5)
    assert answer.content == file.read_bytes()
    assert "X-Linked-Etag" not in answer.headers
    wait_until(lambda: origin.bytes_served == SIZE, what="every byte is counted")


def test_a_range_is_answered_with_exactly_that_part(origin: Origin, file: Path) -> None:
    answer = requests.get(resolve_url(origin), headers={"Range": "bytes=1000-1999"}, timeout=5)
    assert answer.status_code == 206
    assert answer.headers["Content-Range"] == f"bytes 1000-1999/{SIZE}"
    assert answer.content == file.read_bytes()[1000:2000]


def test_a_range_behind_the_end_is_answered_with_416_and_the_size(origin: Origin) -> None:
    answer = requests.get(resolve_url(origin), headers={"Range": f"bytes={SIZE}-"}, timeout=5)
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{SIZE}")


def test_another_version_behind_if_range_gets_the_whole_file(origin: Origin) -> None:
    headers = {"Range": "bytes=0-9", "If-Range": '"another"'}
    assert requests.get(resolve_url(origin), headers=headers, timeout=5).status_code == 200


def test_an_unsigned_request_is_refused(origin: Origin) -> None:
    location = requests.head(resolve_url(origin), allow_redirects=False, timeout=5).headers["Location"]
    address = urljoin(origin.url, location)
    assert requests.head(address, timeout=5).status_code == 200
    for wrong in (address.partition("?")[0], address[:-1] + "x"):
        assert requests.get(wrong, timeout=5).status_code == 403


@pytest.mark.parametrize("path", ["/org/tiny/resolve/main/other.gguf", "/org/tiny/raw/main/tiny.gguf", "/", "/cdn/x"])
def test_anything_else_is_a_404_in_json(origin: Origin, path: str) -> None:
    answer = requests.get(origin.url + path, timeout=5)
    assert answer.status_code == 404
    assert "error" in answer.json()


def test_tampering_flips_one_bit_and_leaves_every_header_right(file: Path) -> None:
    with Origin(file, tamper=True) as origin:
        first = requests.head(resolve_url(origin), allow_redirects=False, timeout=5)
        served = requests.get(resolve_url(origin), timeout=5).content
    honest = file.read_bytes()
    assert first.headers["X-Linked-Etag"] == f'"{hashlib.sha256(honest).hexdigest()}"'
    assert len(served) == SIZE
    differences = [(a ^ b) for a, b in zip(served, honest, strict=True) if a != b]
    assert differences == [1]


def test_the_pace_holds_over_all_connections_together(file: Path) -> None:
    with Origin(file, bytes_per_second=2 * SIZE) as origin:
        begin = time.monotonic()
        readers = [
            threading.Thread(target=requests.get, args=(resolve_url(origin),), kwargs={"timeout": 10}) for _ in range(2)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        # Two files at two files a second; the last chunk need not be waited for.
        assert time.monotonic() - begin > 0.6


def test_a_client_that_leaves_disturbs_nobody(origin: Origin, capfd: pytest.CaptureFixture[str]) -> None:
    with requests.get(resolve_url(origin), stream=True, timeout=5) as answer:
        next(answer.iter_content(1000))
    assert requests.get(resolve_url(origin), timeout=5).status_code == 200
    assert "Traceback" not in capfd.readouterr().err


def test_it_runs_alone_and_ends_on_sigterm(file: Path) -> None:
    command = [sys.executable, "-m", "launcher.origin", "--file", str(file), "--name", "other.gguf"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            answer = requests.get(f"{url}/org/tiny/resolve/main/other.gguf", timeout=5)
            assert answer.content == file.read_bytes()
        finally:
            process.terminate()
        assert process.wait(5) == 0
