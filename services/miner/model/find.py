"""Which model this miner serves, and whether its name still leads to the file that was checked."""

from __future__ import annotations

from shared.errors import ConfigurationError
from shared.genesis import Genesis, ModelPin
from shared.store.layout import StoreLayout
from shared.store.records import StatIdentity


def choose(genesis: Genesis, wanted: str | None) -> ModelPin:
    """Return the pin named `wanted`, or the first one; raises ConfigurationError when the genesis has no such name."""
    pin = genesis.by_name(wanted) if wanted else genesis.models[0]
    if pin is None:
        names = ", ".join(model.model_name for model in genesis.models)
        raise ConfigurationError(
            f"R3MES_MODEL: the accepted genesis pins no model {wanted!r}", next_step=f"use one of: {names}"
        )
    return pin


def identity_by_name(layout: StoreLayout, pin: ModelPin) -> StatIdentity | None:
    """Return what the verified name of a pin leads to now (a link does not count), or None when it leads nowhere."""
    try:
        return StatIdentity.of(layout.verified_file(pin.sha256, pin.file_name).stat(follow_symlinks=False))
    except OSError:
        return None
