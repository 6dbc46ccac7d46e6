"""Geneses for tests: right ones, from which a test makes the one thing wrong that it is about."""

from __future__ import annotations

import hashlib
import json

DIGEST = hashlib.sha256(b"the model of the tests").hexdigest()
OTHER_DIGEST = hashlib.sha256(b"another model").hexdigest()
ABSENT = object()


def entry(**changes: object) -> dict[str, object]:
    """Return a right entry with `changes`; a field set to ABSENT is left out."""
    fields = {
        "model_name": "Tiny",
        "file_name": "tiny.gguf",
        "download_source": "https://huggingface.co/org/tiny/resolve/main/tiny.gguf",
        "verification_sha256": DIGEST,
        "required_disk_space_gb": 0.1,
        "ipfs_fallback_hash": "",
        **changes,
    }
    return {key: value for key, value in fields.items() if value is not ABSENT}


def plain_form(**changes: object) -> bytes:
    """Return the bytes of `{"model_config": {...}}`."""
    return json.dumps({"model_config": entry(**changes)}).encode()


def list_form(*entries: dict[str, object]) -> bytes:
    """Return the bytes of `{"models": [...]}`."""
    return json.dumps({"models": list(entries)}).encode()


def other_entry(**changes: object) -> dict[str, object]:
    """Return a second right entry that shares no identity with `entry()`."""
    return entry(**{"model_name": "Other", "file_name": "other.gguf", "verification_sha256": OTHER_DIGEST, **changes})
