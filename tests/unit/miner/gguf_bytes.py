"""Small GGUF files, right ones, of which a test makes the one thing wrong that it is about."""

from __future__ import annotations

import struct

KEYS: tuple[tuple[str, int, object], ...] = (
    ("general.architecture", 8, "llama"),
    ("general.file_type", 4, 15),
    ("llama.block_count", 4, 2),
    ("llama.context_length", 4, 4096),
    ("llama.embedding_length", 4, 64),
    ("llama.attention.head_count", 4, 4),
    ("llama.attention.head_count_kv", 4, 2),
)
TENSOR = ("blk.0.weight", (32, 4), 0)  # F32: 512 bytes


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, kind: int, value: object) -> bytes:
    if kind == 8:
        content = text(str(value))
    elif kind == 9:
        assert isinstance(value, bytes)
        content = value
    else:
        content = struct.pack({0: "<B", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q"}[kind], value)
    return text(key) + struct.pack("<I", kind) + content


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int = 0) -> bytes:
    extents = b"".join(struct.pack("<Q", extent) for extent in shape)
    return text(name) + struct.pack("<I", len(shape)) + extents + struct.pack("<IQ", kind, offset)


def gguf(
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    keys: tuple[tuple[str, int, object], ...] = KEYS,
    tensors: tuple[bytes, ...] = (tensor(*TENSOR),),
    tensor_count: int | None = None,
    key_count: int | None = None,
    data: int = 512,
) -> bytes:
    counts = struct.pack(
        "<QQ",
        len(tensors) if tensor_count is None else tensor_count,
        len(keys) if key_count is None else key_count,
    )
    header = magic + struct.pack("<I", version) + counts + b"".join(pair(*key) for key in keys) + b"".join(tensors)
    return header + bytes(-len(header) % 32) + bytes(data)
