"""Files that are on the machine already: in the import folder, or beside the store."""

from __future__ import annotations

from pathlib import Path

from tests.support.downloader_process import promote
from tests.support.downloader_stand import DATA, DIGEST, downloader, incoming_is_right
from tests.support.origin_server import ScriptedOrigin
from tests.support.waiting import wait_until


def test_a_file_in_the_import_folder_is_adopted_and_nothing_is_downloaded(home: Path, origin: ScriptedOrigin) -> None:
    home.mkdir()
    imports = home / "imports"
    imports.mkdir()
    (imports / "tiny.gguf").write_bytes(DATA)
    with downloader(home, origin, R3MES_IMPORT_DIR=str(imports)) as service:
        assert service.wait_for(DIGEST, "verifying")["source"] == "import"
        assert incoming_is_right(service)
        assert origin.requests == []
        assert (imports / "tiny.gguf").read_bytes() == DATA


def test_a_file_beside_the_store_is_adopted_verified_and_then_replaced_by_the_link(
    home: Path, origin: ScriptedOrigin
) -> None:
    service = downloader(home, origin)
    service.layout.root.mkdir()
    beside = service.layout.root / "tiny.gguf"
    beside.write_bytes(DATA)
    with service:
        assert service.wait_for(DIGEST, "verifying")["source"] == "import"
        assert not beside.is_symlink()
        promote(service.layout, DIGEST, "tiny.gguf", DATA)
        service.wait_for(DIGEST, "verified")
        wait_until(beside.is_symlink, what="the link")
        assert beside.read_bytes() == DATA
        assert origin.requests == []


def test_a_wrong_file_of_the_right_name_is_left_alone_and_named(home: Path, origin: ScriptedOrigin) -> None:
    service = downloader(home, origin)
    service.layout.root.mkdir()
    beside = service.layout.root / "tiny.gguf"
    beside.write_bytes(b"somebody's own file")
    with service:
        assert service.wait_for(DIGEST, "verifying")["source"] == "huggingface"
        promote(service.layout, DIGEST, "tiny.gguf", DATA)
        wait_until(lambda: str(beside) in service.wait_for(DIGEST, "verified")["message"], what="the file to be named")
        assert beside.read_bytes() == b"somebody's own file"
        assert service.event("a local file is not the pinned one and is left alone") is not None
