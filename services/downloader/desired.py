"""What is desired: the models of the accepted genesis, then those of the staged one that are not in it. Pure."""

from __future__ import annotations

from shared.genesis import ModelPin
from shared.store.trust import Trust


def desired_pins(trust: Trust) -> tuple[ModelPin, ...]:
    """Return every pin once, by digest, in the order in which downloads take their turns."""
    staged = trust.staged.models if trust.staged else ()
    pins: dict[str, ModelPin] = {}
    for pin in (*trust.genesis.models, *staged):
        pins.setdefault(pin.sha256, pin)
    return tuple(pins.values())


def genesis_digests(trust: Trust) -> frozenset[str]:
    """Return the digests of the geneses under which rejected records count."""
    return frozenset({trust.genesis.sha256, *([trust.staged.sha256] if trust.staged else [])})
