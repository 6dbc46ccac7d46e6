"""Run as a script in a process of its own, since importing llama-cpp-python may kill it: prints one line of JSON."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path


def main() -> None:
    """Import the library, load its kernels as a miner does, and say what it was built for."""
    try:
        import llama_cpp  # noqa: PLC0415  what may fail
    except ImportError as error:
        print(json.dumps({"is_installed": error.name != "llama_cpp", "error": str(error)}))  # noqa: T201  its output
        return
    except (OSError, RuntimeError) as error:
        print(json.dumps({"is_installed": True, "error": str(error)}))  # noqa: T201  its output
        return
    ggml = llama_cpp.llama_cpp._lib  # noqa: SLF001  the handle that finds the symbols of the libraries it needs
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    if not ggml.ggml_backend_dev_count():
        ggml.ggml_backend_load_all_from_path(str(Path(llama_cpp.__file__).parent / "lib").encode())
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    ggml.ggml_backend_dev_name.restype = ctypes.c_char_p
    ggml.ggml_backend_dev_name.argtypes = [ctypes.c_void_p]
    count = int(ggml.ggml_backend_dev_count())
    found = {
        "is_installed": True,
        "version": llama_cpp.__version__,
        "system": llama_cpp.llama_print_system_info().decode(errors="replace"),
        "offload": bool(llama_cpp.llama_supports_gpu_offload()),
        "devices": [
            ggml.ggml_backend_dev_name(ggml.ggml_backend_dev_get(number)).decode(errors="replace")
            for number in range(count)
        ],
        "error": "" if count else "none of its kernels runs on this processor",
    }
    print(json.dumps(found))  # noqa: T201  its output


if __name__ == "__main__":
    main()
