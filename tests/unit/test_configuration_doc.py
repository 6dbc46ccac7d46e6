"""docs/configuration.md is what the code makes, and says something about every name."""

import re

import pytest

from docs import configuration
from launcher.endpoints import ClientSettings
from services.downloader.settings import DownloaderSettings
from services.miner.settings import MinerSettings
from services.verifier.settings import VerifierSettings
from shared.acceptance import InitSettings
from shared.settings import KNOWN_NAMES, SECRET_NAMES, CommonSettings

CLASSES = (CommonSettings, InitSettings, DownloaderSettings, VerifierSettings, MinerSettings, ClientSettings)
PAGE = configuration.PAGE.read_text()


def test_the_page_is_current() -> None:
    assert configuration.page() == PAGE, "next: make configuration"


def test_every_known_name_has_a_row() -> None:
    named = set(re.findall(r"(?m)^\| `(\w+)`", PAGE))
    assert KNOWN_NAMES - {f"{name}_FILE" for name in SECRET_NAMES} - named == set()


@pytest.mark.parametrize("settings", CLASSES, ids=lambda settings: settings.__name__)
def test_every_setting_has_a_meaning(settings: type[CommonSettings]) -> None:
    assert [row.name for row in configuration.rows(settings) if not row.meaning] == []


@pytest.mark.parametrize("name", sorted(SECRET_NAMES))
def test_a_secret_is_said_to_be_one(name: str) -> None:
    rows = re.findall(rf"(?m)^\| `{name}` \| [^|]+ \| ([^|]+) \|", PAGE)
    assert set(rows) == {"a secret"}


@pytest.mark.parametrize("name", [field.alias for field in MinerSettings.model_fields.values()])
def test_a_setting_of_the_miner_stands_once_in_its_table_or_in_that_of_every_process(name: str) -> None:
    tables = PAGE.split("\n## ")
    (miner,) = [table for table in tables if table.startswith("Miner")]
    (every,) = [table for table in tables if table.startswith("Every process")]
    wanted = 0 if name.endswith("_FILE") else 1
    assert (miner + every).count(f"\n| `{name}` |") == wanted


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 64}, "integer 1 to 64"),
        ({"type": "integer", "exclusiveMinimum": 0}, "integer from 1 on"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 3600}, "number above 0, at most 3600"),
        ({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": -1}]}, "`auto` or integer from -1 on"),
        ({"type": "string", "pattern": "^(f32|f16)$"}, "`f32`, `f16`"),
        ({"type": "string", "pattern": "^[0-9a-f]{64}$"}, "text"),
    ],
)
def test_values_are_said_in_words(schema: dict[str, object], text: str) -> None:
    assert configuration.values_of(schema) == text
