"""Coverage-guided fuzzing of the genesis parser with atheris, which is not in the locks (docs/genesis.md says how).

    .venv/bin/python tests/fuzz/genesis.py -atheris_runs=1000000 /tmp/corpus tests/fuzz/corpus

New inputs go into the first folder. What must hold is in tests/support/genesis_oracle.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parents[1]))

with atheris.instrument_imports(include=["shared.genesis"]):
    from tests.support import genesis_oracle


def main() -> None:
    """Run libFuzzer with its own options; exits when it does."""
    arguments = [sys.argv[0], f"-dict={FOLDER / 'genesis.dict'}", "-max_len=8192", "-timeout=20", *sys.argv[1:]]
    atheris.Setup(arguments, genesis_oracle.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
