from pathlib import Path

import pytest

from services.downloader.host_link import Place, link_path, look_at, make_link
from shared.genesis import ModelPin, parse_genesis
from shared.store.layout import StoreLayout
from tests.support.geneses import list_form
from tests.support.verifier_store import entry

FILE_NAME = "n" * 250 + ".gguf"  # as long as names may be


@pytest.fixture
def layout(tmp_path: Path) -> StoreLayout:
    return StoreLayout(tmp_path)


@pytest.fixture
def pin() -> ModelPin:
    return parse_genesis(list_form(entry(b"tiny", file_name=FILE_NAME)), file="test").models[0]


def test_a_link_is_made_once_and_found(layout: StoreLayout, pin: ModelPin) -> None:
    assert look_at(layout, pin) is Place.FREE
    make_link(layout, pin)
    assert look_at(layout, pin) is Place.LINKED
    assert str(link_path(layout, pin).readlink()) == f"verified/{pin.sha256}/{FILE_NAME}"


def test_what_a_kill_left_of_a_link_is_gone_with_the_next_one(
    layout: StoreLayout, pin: ModelPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    def die(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(KilledError):
            make_link(layout, pin)
    assert len(list(layout.root.iterdir())) == 1
    make_link(layout, pin)
    assert [path.name for path in layout.root.iterdir()] == [FILE_NAME]
