"""The miner in a cgroup, which it joins before it does anything else: `CGROUP_PROCS` is the file that takes its id."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from services.miner import __main__ as program

if __name__ == "__main__":
    Path(os.environ["CGROUP_PROCS"]).write_text(str(os.getpid()))
    sys.exit(program.main())
