"""What must not be in a report that somebody hands on: secrets, passwords in addresses, the name of a home. Pure.

A secret is known by its name (`HF_TOKEN`, whatever ends in `_TOKEN`, `_KEY`, `_PASSWORD`, …) and blanked wherever its
value stands, also as it stands in an address; what looks like one is blanked without being known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote, urlsplit

from shared.redaction import BLANK, without_credentials
from shared.settings import SECRET_NAMES, SECRET_PATH_NAMES, split_secret

# What is shorter is in half of all words, and protects nothing.
SHORTEST = 4
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|PRIVATE_KEY|ACCESS_KEY|AUTH", re.IGNORECASE)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{6,}|(?<=Bearer )[^\s'\"]+")


class Blanker:
    """Blanks text; made once, of all values that are secret here and of the home directory."""

    def __init__(self, secrets: Iterable[str], home: str) -> None:
        spellings = {form for secret in secrets for form in _spellings(secret) if len(form) >= SHORTEST}
        # The longest first, so that no part of one is left when another is a part of it.
        ordered = sorted(spellings, key=lambda each: (-len(each), each))
        self._secrets = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        self._home = re.compile(re.escape(home.rstrip("/")) + r"(?![\w.-])") if home.strip("/") else None

    def text(self, text: str) -> str:
        """Return `text` without what must not be seen."""
        if self._secrets is not None:
            text = self._secrets.sub(BLANK, text)
        text = _TOKEN.sub(BLANK, without_credentials(text))
        return self._home.sub("~", text) if self._home is not None else text

    def data(self, value: object) -> object:
        """Return JSON data in which every string, also a key, is blanked."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.data(each) for key, each in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.data(each) for each in value]
        return value


def secrets_of(values: Mapping[str, str], files: Iterable[str] = ()) -> set[str]:
    """Return what is secret among settings, and of the contents of secrets' files."""
    found = {part for text in files for part in (text.strip(), *split_secret(text))}
    for name, value in values.items():
        if name in SECRET_NAMES or (_SECRET_NAME.search(name) and not name.endswith("_FILE")):
            found |= {value.strip(), *split_secret(value)}
        found |= _passwords(value)
        if name in SECRET_PATH_NAMES:
            found |= _paths(value)
    return {each for each in found if each}


def _passwords(value: str) -> set[str]:
    """Return what stands before the `@` of an address."""
    found: set[str] = set()
    for part in value.split(",") if "@" in value else ():
        try:
            parts = urlsplit(part.strip() if "://" in part else f"//{part.strip()}")
            found |= {text for text in (parts.password, parts.username) if text}
        except ValueError:
            continue
    return found


def _paths(value: str) -> set[str]:
    """Return the paths of addresses, and what each ends with, which is what a key would be."""
    found: set[str] = set()
    for address in value.split(","):
        path = (address.partition("://")[2] or address).partition("/")[2].strip().strip("/")
        found |= {path, path.rpartition("/")[2]}
    return found


def _spellings(secret: str) -> set[str]:
    """A secret as it is, as an address writes and means it, and the password within one that is an address."""
    forms = {secret, quote(secret, safe=""), quote(secret), unquote(secret), ascii(secret)[1:-1]}
    for password in _passwords(secret):
        forms |= {password, unquote(password), quote(unquote(password), safe="")}
    return forms
