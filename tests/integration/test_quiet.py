"""`-q`: no progress and no hints, and what went wrong is still said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.downloader_stand import DATA, DIGEST
from tests.support.importing import host, is_verified, run_r3mes

pytestmark = pytest.mark.slow


def test_data_and_errors_alone(tmp_path: Path) -> None:
    on = host(tmp_path, DATA)
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_bytes(DATA)
    wrong.write_bytes(DATA[1:])

    verified = run_r3mes(on, "verify", "-q", right)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert verified.stdout.startswith(f"{DIGEST}  Tiny  ")
    imported = run_r3mes(on, "import", "--quiet", right)
    assert (imported.returncode, imported.stderr) == (0, "")
    assert imported.stdout.startswith("Tiny: verified, ")
    assert is_verified(on)
    refused = run_r3mes(on, "import", "-q", wrong)
    assert refused.returncode == 3
    assert refused.stderr.startswith(f"error: {wrong} is not a file that the genesis pins")
    collected = run_r3mes(on, "gc", "-q")
    assert (collected.returncode, collected.stdout, collected.stderr) == (0, "", "")
