"""Work that recurses in C as deep as its input is long, in a thread whose stack suffices and goes with it.

A large stack costs addresses alone until it is used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from shared.errors import NotReadyError

T = TypeVar("T")

MIB = 1024 * 1024
_sizes = threading.Lock()  # the size of the next stack is one for the whole process


def run_deep(work: Callable[[], T], stack_bytes: int) -> T:
    """Return what `work` returns on so large a stack; raises what it raises, NotReadyError where there is none."""
    with ThreadPoolExecutor(1, thread_name_prefix="deep") as pool:
        with _sizes:
            usual = threading.stack_size(-(-stack_bytes // MIB) * MIB)
            try:
                future = pool.submit(work)  # which starts the thread
            except RuntimeError as error:
                raise NotReadyError(
                    f"no memory for a text of this length: {error}", next_step="send a shorter one"
                ) from error
            finally:
                threading.stack_size(usual)
        return future.result()
