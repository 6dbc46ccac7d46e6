"""`r3mes pause|resume|cancel|retry [MODEL...]`: an operator's word to the downloader, or into the store without one."""

from __future__ import annotations

import json
import threading

import typer

from launcher.display import choose_display, printable
from launcher.interrupts import Interrupts, run_until_interrupted
from launcher.model_names import choose
from launcher.options import AsJson, Quiet
from launcher.pull_command import Models
from launcher.pulling import pins_of
from launcher.stack import Stack
from launcher.store_errors import store_errors
from launcher.streams import write_data
from launcher.ways import host_store, running_stack
from services.downloader.run_once import Verb, tell_once
from shared.acceptance.store_root import check_store
from shared.errors import ExitCode, R3mesError
from shared.states import ModelState, ModelStatus
from shared.store.layout import StoreLayout

_WRITTEN = "no stack answers: written into the store, and the next start heeds it; `r3mes pull` fetches in any case"


def pause(models: Models = None, *, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Stop downloads within a second, and keep what came until `r3mes resume`.

    Example: r3mes pause SmolLM2-135M-Instruct
    """
    tell(Verb.PAUSE, models or [], as_json=as_json, quiet=quiet)


def resume(models: Models = None, *, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Let paused downloads go on from where they were.

    Example: r3mes resume SmolLM2-135M-Instruct
    """
    tell(Verb.RESUME, models or [], as_json=as_json, quiet=quiet)


def cancel(models: Models = None, *, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Give downloads up; what came is kept until `r3mes retry` or `r3mes pull`.

    Example: r3mes cancel SmolLM2-135M-Instruct
    """
    tell(Verb.CANCEL, models or [], as_json=as_json, quiet=quiet)


def retry(models: Models = None, *, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Forget failures and wrong bytes of the past, and try again now.

    Example: r3mes retry SmolLM2-135M-Instruct
    """
    tell(Verb.RETRY, models or [], as_json=as_json, quiet=quiet)


def tell(verb: Verb, wanted: list[str], *, as_json: bool, quiet: bool) -> None:
    """Tell whoever fetches models; print how each is then.

    Raises NotReadyError where a stack has to run, or another process fetches the model; ConfigurationError for the key;
    DiskFullError and R3mesError of the store.
    """
    display = choose_display(quiet=quiet)
    stack = running_stack()
    said = _by_stack(stack, verb, wanted) if stack else _by_store(host_store(), verb, wanted)
    if as_json:
        write_data(json.dumps({"word": verb, "models": [status.to_json() for status in said]}, indent=2) + "\n")
    else:
        write_data("".join(f"{printable(describe(verb, status))}\n" for status in said))
    if stack is None:
        display.say(_WRITTEN)


def _by_stack(stack: Stack, verb: Verb, wanted: list[str]) -> list[ModelStatus]:
    return [stack.tell(each.sha256, verb) for each in choose(wanted, stack.models())]


def _by_store(layout: StoreLayout, verb: Verb, wanted: list[str]) -> list[ModelStatus]:
    check_store(layout, "host")
    said: list[ModelStatus] = []

    def work(stop: threading.Event) -> None:
        with store_errors(layout, f"cannot {verb}"):
            said.extend(tell_once(layout, pin, verb, stop) for pin in choose(wanted, pins_of(layout)))

    with Interrupts() as interrupts:
        try:
            run_until_interrupted(work, interrupts)
        except R3mesError:
            if not interrupts.seen:
                raise
        if interrupts.seen:
            raise typer.Exit(ExitCode.INTERRUPTED)
    return said


def describe(verb: Verb, status: ModelStatus) -> str:
    """Say in one line how a model is after a word."""
    name = status.model_name
    if status.state is ModelState.VERIFIED:
        return f"{name}: verified, nothing to {verb}"
    state = f"{status.state} ({status.reason})" if status.reason else str(status.state)
    has_words = status.message and status.state in {ModelState.ABSENT, ModelState.FAILED, ModelState.VETOED}
    return f"{name}: {state}" + (f", {status.message}" if has_words else "")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (pause, resume, cancel, retry):
        app.command()(command)
