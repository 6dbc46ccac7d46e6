"""llama.cpp's kernels where they are libraries of their own, as in the images: the best for this machine is loaded.

Such a build (`GGML_BACKEND_DL`) knows no device before, and llama.cpp itself never loads one, its programs do. Where
the kernels are part of the library, as in a build for this machine alone, there is nothing to do.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llama_cpp
import structlog

from shared.errors import EngineError

_log = structlog.get_logger("miner")

ggml: Any = llama_cpp.llama_cpp._lib  # noqa: SLF001  (a library's handle finds the symbols of those that it needs)
LIBRARIES = Path(llama_cpp.__file__).parent / "lib"


def load_kernels(directory: Path = LIBRARIES) -> tuple[str, ...]:
    """Load the best variant of each kind of device that `directory` has, unless some are there; return their names.

    Once a process, before a model is loaded or a GPU looked for. Raises EngineError when this processor can use none.
    """
    if _device_count():
        return _device_names()
    # Without a path it would look beside the interpreter and in the working directory as well.
    ggml.ggml_backend_load_all_from_path(str(directory).encode())
    if not _device_count():
        raise EngineError(
            f"none of llama.cpp's kernels in {directory} runs on this processor",
            next_step="install llama-cpp-python on this machine itself: make install",
        )
    names = _device_names()
    _log.info("loaded the kernels for this machine", devices=list(names))
    return names


def _device_count() -> int:
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    return int(ggml.ggml_backend_dev_count())


def _device_names() -> tuple[str, ...]:
    """As llama.cpp calls them: `CPU`, `CUDA0`."""
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    ggml.ggml_backend_dev_name.restype = ctypes.c_char_p
    ggml.ggml_backend_dev_name.argtypes = [ctypes.c_void_p]
    return tuple(ggml.ggml_backend_dev_name(ggml.ggml_backend_dev_get(i)).decode() for i in range(_device_count()))
