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


def chain_entry(
    config: dict[str, object] | None = None, *, model_id: str = "1", is_active: object = True, **changes: object
) -> dict[str, object]:
    """Return an entry of the chain's registry: the right one of `entry()`, or of `config`."""
    fields: dict[str, object] = {
        "model_id": model_id,
        "config": {
            "model_type": "MODEL_TYPE_CUSTOM",
            "model_version": "1.0",
            "architecture_config": '{"layers": 30}',
            "execution_environment_id": "7",
            "encryption_type": "ENCRYPTION_TYPE_PLAINTEXT",
            **(entry() if config is None else config),
        },
        "approved_at_height": "12",
        "approved_by": "3",
        "is_active": is_active,
        "created_at": "2026-01-31T12:00:00.5Z",
        **changes,
    }
    return {key: value for key, value in fields.items() if value is not ABSENT}


def chain_form(*entries: object, **modules: object) -> bytes:
    """Return the bytes of a chain's genesis with these registry entries, among what others keep there."""
    return json.dumps(
        {
            "genesis_time": "2026-01-01T00:00:00Z",
            "chain_id": "remes-1",
            "initial_height": "1",
            "consensus": {"params": {"block": {"max_bytes": "22020096"}}},
            "app_state": {
                "auth": {"accounts": [{"address": "remes1xyz", "sequence": "0"}]},
                "remes": {"params": {"fee": 0.5}, "model_registry_list": list(entries), "roles": [1, [2, []], {}]},
                **modules,
            },
        },
        indent=1,
    ).encode()
