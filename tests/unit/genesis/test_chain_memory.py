"""A chain's genesis of tens of megabytes costs next to no memory: neither a service nor whoever accepts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.geneses import chain_entry, chain_form

MEGABYTE = 1024 * 1024
MODULE_BYTES = 32 * MEGABYTE
# By the mark of the process alone (ru_maxrss begins with what the parent had), above what it had before it read the
# file; 1 MiB was seen for 200 MB.
MOST_MORE_KIB = 12 * 1024
READ = """
import sys
from pathlib import Path
from shared.genesis import read_genesis_file
def peak(): return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])
read_genesis_file(Path(sys.argv[1]))
before = peak()
genesis = read_genesis_file(Path(sys.argv[2]))
print(len(genesis.models), peak() - before)
"""

# Each step once with a small file, so that what it imports is there; then with the large one.
ACCEPT = """
import sys
from pathlib import Path
from shared.acceptance import accept, load_init_settings, plan_acceptance, stage, start_host_store, start_store
from shared.settings import CommonSettings, load_settings
def peak(): return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])
def everything(genesis, store):
    file = Path(store + "-operator.json")
    environ = {"R3MES_GENESIS": str(file), "R3MES_MODELS_DIR": store}
    def copy(source, more=b""):
        with open(source, "rb") as old, open(file, "wb") as new:
            while chunk := old.read(65536):
                new.write(chunk)
            new.write(more)
    def settings(): return load_init_settings(environ, project=Path.cwd())
    copy(genesis)
    start_store(*settings())
    start_store(*settings())
    start_host_store(load_settings(CommonSettings, environ), environ)
    for more, do in ((b" ", stage), (b" ", accept), (b"", accept)):
        copy(genesis, more)
        do(plan_acceptance(*settings()))
    return (Path(store) / "trust" / "genesis.json").stat().st_size
small, large, stores = sys.argv[1:]
everything(small, stores + "/first")
before = peak()
print(everything(large, stores + "/second"), peak() - before)
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Return a small genesis of a chain, and the same with 64 MB of other modules in it."""
    small, large = tmp_path / "small.json", tmp_path / "large.json"
    small.write_bytes(chain_form(chain_entry()))
    account = (
        b'{"address": "remes1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq", "coins": [{"denom": "uremes", "amount": "1"}]},'
    )
    bank = b'"bank": {"balances": [' + account * (MODULE_BYTES // len(account)) + b"{}]},"
    blob = b'"wasm": {"code": "' + b"QUJD" * (MODULE_BYTES // 4) + b'"},'
    large.write_bytes(small.read_bytes().replace(b'"app_state": {', b'"app_state": {' + bank + blob, 1))
    assert large.stat().st_size > 60 * MEGABYTE
    return small, large


def test_a_large_genesis_is_read_in_bounded_memory(files: tuple[Path, Path]) -> None:
    done = subprocess.run([sys.executable, "-c", READ, *files], capture_output=True, text=True, check=True)

    models, more = map(int, done.stdout.split())
    assert models == 1
    assert more < MOST_MORE_KIB


@pytest.mark.slow
def test_a_large_genesis_is_accepted_staged_and_found_unchanged_in_bounded_memory(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    done = subprocess.run([sys.executable, "-c", ACCEPT, *files, tmp_path], capture_output=True, text=True, check=True)

    size, more = map(int, done.stdout.splitlines()[-1].split())  # above it are lines of the log
    assert size == files[1].stat().st_size
    assert more < MOST_MORE_KIB
