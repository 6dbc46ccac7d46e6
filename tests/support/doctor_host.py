"""A host for `r3mes doctor`: a project's folder, a genesis, a store; and an HTTP server that plays Hugging Face."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from launcher.doctor.subject import Subject, examine
from launcher.doctor.verdict import Status, Verdict
from services.verifier.run_once import Outcome, verify_once
from shared.acceptance import load_init_settings, start_store
from shared.store.layout import StoreLayout
from tests.support.downloader_process import model, sha256
from tests.support.geneses import list_form
from tests.support.r3mes_shell import R3MES, ROOT
from tests.support.verifier_store import Store

OK, WARNING, FAILED, SKIPPED = Status.OK, Status.WARNING, Status.FAILED, Status.SKIPPED
DATA = b"GGUF" + bytes(range(256)) * 400
COMMIT = "c" * 40
CID = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
FILE = "/org/tiny/resolve/main/tiny.gguf"
TOKEN = "hf_averysecrettoken"
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class DoctorHost:
    """A machine with nothing but a genesis; HF_ENDPOINT leads to a port where nobody listens until a test says more."""

    def __init__(self, folder: Path, *, genesis: bool = True, **changes: object) -> None:
        self.project = folder / "project"
        self.project.mkdir()
        self.home = folder / "home"
        self.home.mkdir()
        self.layout = StoreLayout(self.home / ".r3mes" / "models")
        self.genesis = self.project / "genesis.json"
        if genesis:
            self.genesis.write_bytes(list_form(model(DATA, **changes)))
        self.programs = folder / "bin"  # no docker, no nvidia-smi but what a test puts there
        self.programs.mkdir()
        self.environ = {
            "HOME": str(self.home),
            "PATH": str(self.programs),
            "PYTHONPATH": str(ROOT),
            "R3MES_GENESIS": str(self.genesis),
            "R3MES_MODELS_DIR": str(self.layout.root),
            "R3MES_THREADS": "1",
            "HF_ENDPOINT": "http://127.0.0.1:1",
            "R3MES_IPFS_GATEWAYS": "http://127.0.0.1:1",
            "R3MES_URL": "http://127.0.0.1:1",  # else other tests' services on the usual ports would be looked at
        }

    def subject(self, *, offline: bool = False, deep: bool = False, **environ: str) -> Subject:
        return examine({**self.environ, **environ}, self.project, offline=offline, deep=deep)

    def accept(self, **environ: str) -> None:
        start_store(*load_init_settings({**self.environ, **environ}, project=self.project))

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*R3MES, *arguments],
            cwd=self.project,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def program(self, name: str, body: str) -> None:
        """Put a program on the PATH: a Python script that sees `argv`."""
        path = self.programs / name
        path.write_text(f"#!{sys.executable} -S\nimport sys\nargv = sys.argv[1:]\n{body}\n")
        path.chmod(0o755)


def only(verdicts: list[Verdict]) -> Verdict:
    (verdict,) = verdicts
    return verdict


def checks_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """The entries of a run with `--json` by check; of several of one check the worst."""
    order = ["skipped", "ok", "warning", "failed"]
    found: dict[str, dict[str, Any]] = {}
    for entry in json.loads(done.stdout)["checks"]:
        before = found.get(entry["check"])
        if before is None or order.index(entry["status"]) > order.index(before["status"]):
            found[entry["check"]] = entry
    return found


def play_hugging_face(server: HTTPServer, *, data: bytes = DATA, **headers: str) -> str:
    """Answer for the file as Hugging Face does, with its own headers; return the endpoint."""
    told = {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data)), "X-Repo-Commit": COMMIT, **headers}

    def answer(request: Request) -> Response:
        return ranged(request, data, told)

    server.expect_request(re.compile(r".*/tiny\.gguf")).respond_with_handler(answer)
    return server.url_for("").rstrip("/")


def ranged(request: Request, data: bytes, headers: dict[str, str]) -> Response:
    """A file, or a range of it."""
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if request.method == "HEAD" or match is None:
        return Response(b"" if request.method == "HEAD" else data, 200, headers)
    first, last = int(match[1]), min(int(match[2]), len(data) - 1)
    return Response(data[first : last + 1], 206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"})


def put_verified(layout: StoreLayout, data: bytes = DATA) -> Path:
    """Let the verifier promote the file, as it does."""
    digest = sha256(data)
    Store(layout).put(digest, data)
    assert verify_once(layout, digest) is Outcome.PROMOTED
    return layout.verified_file(digest, "tiny.gguf")


def is_root() -> bool:
    return os.geteuid() == 0
