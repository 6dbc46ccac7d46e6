"""Which sources a pin has: a local file that is of no use is one no longer, until it is another."""

import errno
from pathlib import Path

import pytest

from services.downloader.interrupt import Interrupt
from services.downloader.limits import DEFAULT_LIMITS
from services.downloader.settings import DownloaderSettings
from services.downloader.sources.base import PermanentSourceError
from services.downloader.sources.imported import ImportedSupply
from services.downloader.sources.offers import Offers
from shared.genesis import ModelPin
from shared.states import Source

PIN = ModelPin("Tiny", "tiny.gguf", "https://huggingface.co/o/t/resolve/main/tiny.gguf", "a" * 64, 1.0, "", None)


def test_a_file_that_cannot_be_read_is_offered_again_when_its_rights_have_changed(tmp_path: Path) -> None:
    offers = Offers(DownloaderSettings(import_dir=tmp_path, models_dir=tmp_path / "models"), {}, DEFAULT_LIMITS)
    file = tmp_path / PIN.file_name
    file.write_bytes(b"GGUF")
    file.chmod(0o000)
    assert offers.of(PIN) == (Source.IMPORT, Source.HUGGINGFACE)
    offers.wrong_files.add_unreadable(file, PermissionError(errno.EACCES, "Permission denied"))
    assert offers.of(PIN) == (Source.HUGGINGFACE,)
    file.chmod(0o644)
    assert offers.of(PIN) == (Source.IMPORT, Source.HUGGINGFACE)


def test_a_source_that_cannot_read_its_file_says_so(tmp_path: Path) -> None:
    told: list[Path] = []
    gone = tmp_path / "gone"
    supply = ImportedSupply([gone], PIN.sha256, lambda _path, _found: None, lambda path, _error: told.append(path))
    (place,) = supply.connect(Interrupt()).places
    with pytest.raises(PermanentSourceError, match="cannot read"):
        place.preflight()
    assert told == [gone]
