"""`r3mes import`, `verify` and `gc` in the container of `init`, beside the stack that they work for.

That of `init` places a file and the stack verifies it; a folder is mounted; what no genesis pins any more is removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.compose import Stack
from tests.support.containers import need_engine
from tests.support.downloader_process import MIB, model, sha256
from tests.support.geneses import list_form
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

SERVICES = ("redis", "downloader", "verifier")
DATA = os.urandom(3 * MIB + 1)
DIGEST = sha256(DATA)
PINNED = model(DATA, download_source="https://origin.invalid/tiny.gguf")
OTHER = model(b"other", model_name="Other", file_name="other.gguf", download_source="https://origin.invalid/other.gguf")
STAT = f"""
import json, os, pathlib
for directory in pathlib.Path("/models").glob("*/{DIGEST}"):
    for path in (directory, *directory.iterdir()):
        status = path.lstat()
        print(json.dumps([str(path.relative_to("/models")), status.st_uid, status.st_gid, status.st_mode & 0o7777]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this host with the file, under another name and readable by root alone."""
    folder = tmp_path_factory.mktemp("imports")
    folder.chmod(0o755)
    (folder / "mine.bin").write_bytes(DATA)
    (folder / "mine.bin").chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Stack]:
    """The stack without its miner, whose genesis pins a file that no source has; removed at the end with its volumes.

    Nothing compiles, and nothing is downloaded.
    """
    need_engine()
    stack = Stack(
        tmp_path_factory.mktemp("stack"),
        files=["docker-compose.yml", "compose.import.yml"],
        environment={"R3MES_IMPORT_DIR": str(folder)},
    )
    pin(stack, PINNED)
    with stack:
        stack.run("build", "init", "downloader", "verifier", seconds=1500)
        yield stack


def pin(stack: Stack, entry: dict[str, object]) -> None:
    (stack.directory / "genesis" / "genesis.json").write_bytes(list_form(entry))


def accept(stack: Stack, folder: Path, entry: dict[str, object]) -> None:
    """Pin another model, and only that."""
    pin(stack, entry)
    in_init(stack, folder, "r3mes", "genesis", "accept", "--yes")


def in_init(stack: Stack, folder: Path, *command: str) -> str:
    return stack.run("run", "--rm", "--no-deps", "-T", "-v", f"{folder}:/import:ro", "init", *command)


def import_mine(stack: Stack, folder: Path) -> str:
    """Import the file and return how it ended."""
    (report,) = json.loads(in_init(stack, folder, "r3mes", "import", "--json", "/import/mine.bin"))["files"]
    return str(report["result"])


def rights(stack: Stack, folder: Path) -> dict[str, list[int]]:
    """Return owner, group and mode of what the store holds of the file."""
    return {path: rest for path, *rest in map(json.loads, in_init(stack, folder, "python", "-c", STAT).splitlines())}


def wait_until_verified(stack: Stack) -> None:
    receipt = f"import os; print(os.path.exists('/models/verified/{DIGEST}/receipt.json'))"
    wait_until(lambda: stack.python("downloader", receipt) == "True", 120, "the verdict")


def forget(stack: Stack, folder: Path) -> None:
    """Remove the verified file under the running services, and wait until no source has it."""
    in_init(stack, folder, "rm", "-r", f"/models/verified/{DIGEST}")
    state = (
        "import json, urllib.request as r\n"
        f"print(json.load(r.urlopen('http://127.0.0.1:8081/api/v1/models/{DIGEST}'))['state'])"
    )
    wait_until(lambda: stack.python("downloader", state) == "failed", 180, "no source to have it")


def test_a_file_is_placed_by_init_and_verified_by_the_stack_that_starts_afterwards(stack: Stack, folder: Path) -> None:
    assert import_mine(stack, folder) == "placed"
    assert rights(stack, folder) == {
        f"incoming/{DIGEST}": [10001, 10000, 0o2770],
        f"incoming/{DIGEST}/data": [10001, 10000, 0o660],
        f"incoming/{DIGEST}/journal.json": [10001, 10000, 0o660],
    }
    stack.run("up", "--detach", "--wait", *SERVICES)
    wait_until_verified(stack)
    assert rights(stack, folder)[f"verified/{DIGEST}/tiny.gguf"] == [10002, 10000, 0o444]
    assert import_mine(stack, folder) == "already_verified"


def test_a_running_stack_notices_an_import(stack: Stack, folder: Path) -> None:
    forget(stack, folder)
    assert import_mine(stack, folder) == "placed"
    wait_until_verified(stack)


def test_a_file_of_the_pinned_name_in_the_folder_is_adopted_by_the_downloader(stack: Stack, folder: Path) -> None:
    forget(stack, folder)
    (folder / "tiny.gguf").write_bytes(DATA)
    (folder / "tiny.gguf").chmod(0o644)
    wait_until_verified(stack)


def test_verify_says_whether_a_file_is_pinned(stack: Stack, folder: Path) -> None:
    (folder / "wrong.bin").write_bytes(b"?" + DATA[1:])
    said = in_init(stack, folder, "r3mes", "verify", "/import/mine.bin")
    assert said == f"{DIGEST}  Tiny  /import/mine.bin\n"
    init = ("run", "--rm", "--no-deps", "-T", "-v", f"{folder}:/import:ro", "init")
    assert stack.exit_code(*init, "r3mes", "verify", "/import/wrong.bin") == 3


def test_the_launcher_of_the_host_goes_into_the_container_by_itself(stack: Stack, folder: Path) -> None:
    done = stack.launch("verify", str(folder / "mine.bin"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{DIGEST}  Tiny  /host{folder}/mine.bin\n"
    assert "this folder's stack runs in containers: docker compose run --rm --no-deps" in done.stderr
    assert stack.launch("verify", "--quiet", str(folder / "wrong.bin")).returncode == 3
    (report,) = json.loads(stack.launch("import", "--json", "-q", str(folder / "mine.bin")).stdout)["files"]
    assert report["result"] == "already_verified"
    shown = json.loads(stack.launch("genesis", "show", "--json").stdout)
    assert [model["verification_sha256"] for model in shown["models"]] == [DIGEST]
    assert json.loads(stack.launch("gc", "--dry-run", "--json").stdout)["kind"] == "container"
    assert "already" in stack.launch("genesis", "accept", "--yes").stderr


def test_gc_removes_what_left_the_genesis_and_leaves_the_owners_of_the_table(stack: Stack, folder: Path) -> None:
    kept = json.loads(in_init(stack, folder, "r3mes", "gc", "--yes", "--json"))
    assert kept["items"] == []
    accept(stack, folder, OTHER)
    gone = json.loads(in_init(stack, folder, "r3mes", "gc", "--yes", "--json"))
    assert ("verified", DIGEST, "removed") in {(item["kind"], item["sha256"], item["result"]) for item in gone["items"]}
    wait_until(lambda: rights(stack, folder) == {}, 60, "the downloader to remove what is its own")
    program = (
        "import json, os\n"
        "for name in ('incoming', 'verified', 'rejected', 'trust'):\n"
        "    status = os.stat(f'/models/{name}')\n"
        "    print(json.dumps([status.st_uid, status.st_gid, status.st_mode & 0o7777]))"
    )
    owners = [json.loads(line) for line in in_init(stack, folder, "python", "-c", program).splitlines()]
    assert owners == [[10001, 10000, 0o2770], [10002, 10000, 0o2755], [10002, 10000, 0o2750], [0, 0, 0o755]]


def test_the_verifier_removes_what_left_the_genesis_for_longer_than_it_is_kept(stack: Stack, folder: Path) -> None:
    """Its `trust/` is mounted read-only: it takes the lock of acceptance all the same."""
    accept(stack, folder, PINNED)
    wait_until_verified(stack)  # adopted from the folder once more
    (stack.directory / ".env").write_text("R3MES_RETAIN_HOURS=0.002\n")
    stack.run("up", "--detach", "--wait", *SERVICES)
    accept(stack, folder, OTHER)
    wait_until(lambda: rights(stack, folder) == {}, 120, "the removal")
