"""Who does what a command about models asks for: a running stack, or this process over the store of this host."""

from __future__ import annotations

import logging
import os

from launcher.display import Display, short_path
from launcher.endpoints import ClientSettings
from launcher.one_shot import has_container_stack
from launcher.pulling import ByStack, Here
from launcher.stack import Stack, find_stack
from launcher.working_folder import working_folder
from shared.acceptance import StartAction, load_init_settings, start_store
from shared.errors import NotReadyError
from shared.settings import load_settings
from shared.store.layout import StoreLayout

# The verifier's: a verified file's directory may be read by others.
_UMASK = 0o022


def find_way(display: Display) -> ByStack | Here:
    """Return who fetches models. On a host without a stack the genesis is accepted first, as by the first service.

    Raises NotReadyError where a stack has to run first or does not answer, UsageError for an `R3MES_URL` that is none,
    ConfigurationError (GenesisError, StoreError).
    """
    stack = running_stack()
    if stack is not None:
        display.say(f"asking the stack at {stack.url}")
        return ByStack(stack, display)
    settings, values = load_init_settings(os.environ, project=working_folder())
    outcome = start_store(settings, values, judge_unchanged=False)
    if outcome.action is StartAction.ACCEPT:
        display.say(f"genesis accepted, sha256 {outcome.sha256}")
    display.say(f"no stack answers: working here, into {short_path(outcome.layout.root)}")
    os.umask(_UMASK)
    _keep_services_quiet()
    return Here(outcome.layout)


def running_stack() -> Stack | None:
    """Return the stack that answers, None on a host where none does; raises as `find_way` does."""
    settings = load_settings(ClientSettings)
    stack = find_stack(settings)
    if stack is None and (settings.store_kind == "container" or has_container_stack(os.environ, working_folder())):
        raise NotReadyError(
            "no stack answers, and the store of a container stack is for its services alone",
            next_step="start it: docker compose up --detach; or name the one that runs: R3MES_URL",
        )
    return stack


def host_store() -> StoreLayout:
    """Return the store of this host."""
    layout = StoreLayout(load_settings(ClientSettings).store_root)
    _keep_services_quiet()
    return layout


def _keep_services_quiet() -> None:
    """Let the services' code log what somebody asked to see, and else nothing: the statuses tell a person the same."""
    if "R3MES_LOG_LEVEL" not in os.environ and os.environ.get("R3MES_DEBUG") != "1":
        logging.getLogger().setLevel(logging.CRITICAL)
