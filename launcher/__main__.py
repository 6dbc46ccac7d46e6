"""`r3mes`, and `python -m launcher`: the command, which a Ctrl-C may end from its first moment on.

Reading in everything that the command needs takes a while, and an interrupt within it deserves no traceback either.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with the code of the contract."""
    try:
        from launcher.cli import main as run  # noqa: PLC0415  what takes the while

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
