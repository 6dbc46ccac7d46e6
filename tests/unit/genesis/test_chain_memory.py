"""A chain's genesis of tens of megabytes costs a service next to no memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.geneses import chain_entry, chain_form

MEGABYTE = 1024 * 1024
MODULE_BYTES = 32 * MEGABYTE
# Above what the process had before it read the file; 1 MiB was seen for 200 MB.
MOST_MORE_KIB = 12 * 1024
READ = """
import resource, sys
from pathlib import Path
from shared.genesis import read_genesis_file
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read_genesis_file(Path(sys.argv[1]))
before = peak()
genesis = read_genesis_file(Path(sys.argv[2]))
print(len(genesis.models), peak() - before)
"""


def test_a_large_genesis_is_read_in_bounded_memory(tmp_path: Path) -> None:
    small, large = tmp_path / "small.json", tmp_path / "large.json"
    small.write_bytes(chain_form(chain_entry()))
    account = (
        b'{"address": "remes1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq", "coins": [{"denom": "uremes", "amount": "1"}]},'
    )
    bank = b'"bank": {"balances": [' + account * (MODULE_BYTES // len(account)) + b"{}]},"
    blob = b'"wasm": {"code": "' + b"QUJD" * (MODULE_BYTES // 4) + b'"},'
    large.write_bytes(small.read_bytes().replace(b'"app_state": {', b'"app_state": {' + bank + blob, 1))
    assert large.stat().st_size > 60 * MEGABYTE

    done = subprocess.run([sys.executable, "-c", READ, small, large], capture_output=True, text=True, check=True)

    models, more = map(int, done.stdout.split())
    assert models == 1
    assert more < MOST_MORE_KIB
