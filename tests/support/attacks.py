"""The conformance suite on the pin: what an attack is, and what it means that the pin withstands it.

Refused means: exit code 78, an error that names what is wrong and the next step, not one byte changed in the store,
the same from `init check` and from `genesis accept`, and a service that runs goes on with the digest that it had.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from shared.errors import ConfigurationError, ExitCode, GenesisError
from shared.store.trust import TrustWatch, read_trust
from tests.support.geneses import DIGEST, OTHER_DIGEST, entry, plain_form
from tests.support.genesis_host import Host, snapshot

OLD = plain_form()
NEW = plain_form(verification_sha256=OTHER_DIGEST)


class Named(Protocol):
    """What every case of the suite has: a sentence that says what it attacks."""

    @property
    def attacks(self) -> str: ...


def sentence(case: Named) -> str:
    """Return a case's name for pytest."""
    return case.attacks


@dataclass(frozen=True)
class WrongFile:
    """An operator's file that must be refused.

    `field`: the path that the error names (empty: the file as a whole); `found`: a piece of what it says was found.
    """

    attacks: str
    raw: bytes
    field: str
    found: str


@dataclass(frozen=True)
class Deed:
    """Something done to a host that accepted OLD, after which a start (with `environ`) is refused.

    `says`: pieces of the message and the next step.
    """

    attacks: str
    do: Callable[[Host], object]
    says: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)


class Running:
    """A host that accepted a genesis, and a service that runs on what was accepted."""

    def __init__(self, host: Host, raw: bytes = OLD, **environ: str) -> None:
        self.host = host
        host.file.write_bytes(raw)
        host.start(**environ)
        self.watch = TrustWatch(host.layout)
        self.genesis = self.watch.current.genesis

    def goes_on(self) -> None:
        """Assert that the service that runs works with what it had."""
        assert self.watch.poll() is None
        assert self.watch.current.genesis == self.genesis
        assert self.watch.current.digests == {DIGEST}

    def is_unmoved(self) -> None:
        """Assert that, besides, one that starts now would work with the same."""
        self.goes_on()
        assert read_trust(self.host.layout).genesis == self.genesis

    def accepts_no(self, *says: str, **environ: str) -> None:
        """Assert that neither an acceptance nor a staging takes the operator's file, and that both change nothing."""
        before = snapshot(self.host.layout.root)
        for staged in (False, True):
            with pytest.raises(ConfigurationError) as refused:
                self.host.accept(staged=staged, **environ)
            speaks(refused.value, *says)
        assert snapshot(self.host.layout.root) == before


def speaks(error: ConfigurationError, *says: str) -> None:
    """Assert that an error says these things and the next step, and writes nothing else to a person's terminal."""
    shown = error.diagnostics()
    assert error.exit_code is ExitCode.CONFIGURATION
    assert error.next_step
    assert all(line.isprintable() and line.isascii() for line in shown.split("\n")), shown
    for piece in says:
        assert piece in shown


def withstands(host: Host, attack: WrongFile) -> None:
    """Assert that the file is refused by a host that is new, and by one on which another file was accepted."""
    host.file.write_bytes(attack.raw)
    names(host.refused(), host, attack)
    assert not host.layout.root.exists()

    running = Running(host)
    host.file.write_bytes(attack.raw)
    names(host.refused(), host, attack)
    running.accepts_no(attack.found)
    running.is_unmoved()


def names(error: ConfigurationError, host: Host, attack: WrongFile) -> None:
    """Assert that an error names file, field, what was found and what is wanted."""
    assert isinstance(error, GenesisError)
    assert error.file == str(host.file)
    assert error.field == attack.field
    assert attack.found in error.found
    assert error.wanted
    speaks(error, error.file, error.found, error.wanted)


def spelled(name: str, text: str, **changes: object) -> bytes:
    """Return a plain form in which the value of one field is this JSON text, as it stands."""
    marker = "the value of this field"
    return json.dumps({"model_config": entry(**{**changes, name: marker})}).replace(f'"{marker}"', text).encode()


def beside(*pairs: str) -> bytes:
    """Return a plain form whose entry begins with these further `"key": value` pairs."""
    return OLD.replace(b'"model_name"', ", ".join([*pairs, '"model_name"']).encode(), 1)
