"""The small file that the process's tests pin, and a downloader of it whose Hugging Face is an origin of ours."""

from __future__ import annotations

import os
from pathlib import Path

from services.downloader.transfer.incoming import read_journal
from tests.support.downloader_process import MIB, Downloader, model, sha256
from tests.support.origin_server import ScriptedOrigin

DATA = os.urandom(3 * MIB + 17)
DIGEST = sha256(DATA)
PATH = "/org/tiny/resolve/main/tiny.gguf"


def downloader(home: Path, origin: ScriptedOrigin, *models: dict[str, object], **environ: str) -> Downloader:
    """Return a downloader of `models` (the small file), for which the origin stands in for Hugging Face."""
    return Downloader(home, *(models or (model(DATA),)), environ={"HF_ENDPOINT": origin.url, **environ})


def incoming_is_right(service: Downloader, data: bytes = DATA) -> bool:
    journal = read_journal(service.layout, sha256(data))
    return journal is not None and journal.complete and service.layout.data(sha256(data)).read_bytes() == data
