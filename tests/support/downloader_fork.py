"""The real downloader in a child that is forked with everything imported: a start costs milliseconds, not a second.

For tests that start it hundreds of times; what runs is `services.downloader.__main__.main`, as in production.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

from services.downloader.__main__ import main

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([__name__])


def start_downloader(environ: Mapping[str, str], home: Path, log: Path) -> BaseProcess:
    """Start a downloader with exactly this environment; it logs to `log`."""
    child = context.Process(target=_run, args=(dict(environ), home, log))
    child.start()
    return child


def _run(environ: dict[str, str], home: Path, log: Path) -> None:
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(home)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.exit(main())
