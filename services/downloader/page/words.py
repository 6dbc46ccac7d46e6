"""The words of the page, for the server and, as /page/words.js, for the browser."""

from __future__ import annotations

import json

from shared.states import FailureReason, ModelState, Source

STATES = {
    ModelState.ABSENT: "Waiting",
    ModelState.DOWNLOADING: "Downloading",
    ModelState.PAUSED: "Paused",
    ModelState.VERIFYING: "Verifying",
    ModelState.VERIFIED: "Verified",
    ModelState.FAILED: "Failed",
    ModelState.VETOED: "Vetoed",
}
# What the state means, in a sentence; {source} is where the bytes come from.
STORIES = {
    ModelState.ABSENT: "Not here yet.",
    ModelState.DOWNLOADING: "The bytes come from {source}, and are verified as they come.",
    ModelState.PAUSED: "An operator paused it. The bytes so far are kept.",
    ModelState.VERIFYING: "All bytes are here. Their SHA-256 is being compared with the pin.",
    ModelState.VERIFIED: "Its bytes have the pinned SHA-256: miners may load it.",
    ModelState.VETOED: "A quorum of the chain's nodes does not know this digest, so it is not downloaded.",
}
REASONS = {
    FailureReason.SOURCE_UNAVAILABLE: "No source delivers it.",
    FailureReason.UPSTREAM_MISMATCH: "The source has another file than the pinned one.",
    FailureReason.HASH_MISMATCH: "Wrong bytes came.",
    FailureReason.BYTES_LOST: "Bytes on the disk were lost or damaged.",
    FailureReason.DISK_FULL: "There is too little room on the disk.",
    FailureReason.CANCELLED: "An operator cancelled it.",
}
SOURCES = {Source.IMPORT: "a local file", Source.HUGGINGFACE: "Hugging Face", Source.IPFS: "IPFS"}
NO_SOURCE = "a source"

# What an operator may ask for, by state (of a failure, by its reason): the verb of the API and its button.
CANCELLED = f"{ModelState.FAILED}:{FailureReason.CANCELLED}"
ACTIONS = {
    ModelState.ABSENT: ["pause"],
    ModelState.DOWNLOADING: ["pause", "cancel"],
    ModelState.PAUSED: ["resume", "cancel"],
    ModelState.FAILED: ["retry", "cancel"],
    CANCELLED: ["resume"],
    ModelState.VETOED: [],
    ModelState.VERIFYING: [],
    ModelState.VERIFIED: [],
}


def as_module() -> bytes:
    """Return the words as a JavaScript module."""
    words = {
        "STATES": STATES,
        "STORIES": STORIES,
        "REASONS": REASONS,
        "SOURCES": SOURCES,
        "NO_SOURCE": NO_SOURCE,
        "ACTIONS": ACTIONS,
    }
    lines = [f"export const {name} = {json.dumps(value, indent=2)};" for name, value in words.items()]
    return ("// Made from services/downloader/page/words.py.\n" + "\n".join(lines) + "\n").encode()
