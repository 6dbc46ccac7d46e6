"""llama.cpp's messages, routed into this process's log; its last errors, to say why it refused something."""

from __future__ import annotations

import ctypes
from collections import deque
from typing import Any

import structlog
from llama_cpp import llama_cpp

llama: Any = llama_cpp

WARNING, ERROR = 3, 4  # ggml_log_level

_log = structlog.get_logger("llama")
_last_errors: deque[str] = deque(maxlen=3)
_expected: ctypes.Array[ctypes.c_char] | None = None


def _on_log(level: int, text: bytes, _data: object) -> None:
    line = text.decode(errors="replace").strip()
    if not line.strip("."):
        return  # a progress bar
    if level == ERROR and _expected is not None and _expected.raw[0]:
        _log.debug(line)
    elif level == ERROR:
        _last_errors.append(line)
        _log.error(line)
    elif level == WARNING:
        _log.warning(line)
    else:
        _log.debug(line)


_CALLBACK = llama.llama_log_callback(_on_log)  # llama.cpp keeps a bare pointer: it must live as long as the process


def expect_errors_while(flag: ctypes.Array[ctypes.c_char]) -> None:
    """Take errors for information while the first byte of `flag` is not 0: whoever set it asked for them."""
    global _expected  # noqa: PLW0603  (llama.cpp has one log a process)
    _expected = flag


def take_log() -> None:
    """Route llama.cpp's messages into this process's log; progress and information only at debug."""
    llama.llama_log_set(_CALLBACK, ctypes.c_void_p(0))


def last_errors() -> str:
    """Return llama.cpp's own last words, empty when it said nothing."""
    return "; ".join(_last_errors)
