"""`r3mes bench`: how fast this host is, in about a minute: link, disk, hash, prefill, decode."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Annotated

import typer
from rich.console import Console

from launcher.bench.disk import measure_disk
from launcher.bench.figures import Figure, Measured, Missing
from launcher.bench.hashing import measure_hash
from launcher.bench.inference import Asker, measure_inference
from launcher.bench.link import measure_link
from launcher.bench.miner import Found, own_miner, running_miner
from launcher.bench.report import document, lines, plain, table
from launcher.display import Display, choose_display
from launcher.doctor.subject import Subject, blanker_of, examine
from launcher.doctor_command import adopt
from launcher.endpoints import ClientSettings
from launcher.interrupts import gather_until_interrupted
from launcher.options import AsJson, Quiet
from launcher.streams import write_data
from launcher.working_folder import working_folder
from shared.errors import ExitCode
from shared.settings import load_settings

# Above this, per processor, others are at work as well.
BUSY_LOAD = 0.5


def bench(
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="Leave the link out: ask nobody beyond this host.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure this host: link, disk, hash, and a model's prefill and decode, in about a minute.

    Asks a miner that runs; without one it starts its own for a model that is verified here. Nothing is left behind.
    Each figure has its unit, rounds and spread. Run it when nothing else runs.

    Examples: r3mes bench · r3mes bench --offline · r3mes bench --json > bench.json
    """
    settings = load_settings(ClientSettings)
    display = choose_display(quiet=quiet)
    subject = examine(os.environ, working_folder(), offline=offline)
    adopt(subject)
    busy = os.getloadavg()[0] / max(len(os.sched_getaffinity(0)), 1)
    if busy > BUSY_LOAD:
        display.say(f"others are at work here (load {busy:.1f} a processor): what is measured is what they leave")
    measured = measure(subject, settings, display)
    if measured is None:
        display.say("stopped; nothing is left behind")
        raise typer.Exit(ExitCode.INTERRUPTED)
    blanker = blanker_of(subject.environ, subject.project)
    if as_json:
        write_data(json.dumps(document(measured, subject, blanker), indent=2) + "\n")
        return
    console = Console(highlight=False, markup=False)
    if console.is_terminal and not console.is_dumb_terminal:
        console.print(table(measured))
    else:
        write_data(plain(measured))
    write_data("".join(f"{line}\n" for line in lines(measured, blanker)))


def measure(subject: Subject, settings: ClientSettings, display: Display) -> Measured | None:
    """Measure all there is; None when interrupted."""

    def work(stop: threading.Event) -> Iterator[Figure | Missing]:
        yield from measure_link(subject, rounds(display), stop)
        yield from measure_disk(subject.layout.root, rounds(display), stop)
        yield from measure_hash(rounds(display), stop)
        yield from _measure_miner(subject, settings, display, stop)

    return gather_until_interrupted(work, display.pause)


def _measure_miner(subject: Subject, settings: ClientSettings, display: Display, stop: threading.Event) -> Measured:
    found = running_miner(settings, offline=subject.offline)
    if found is not None:
        return _ask(found, settings.api_key, rounds(display), stop)
    with own_miner(subject, display.say, stop) as own:
        return [own] if isinstance(own, Missing) else _ask(own, None, rounds(display), stop)


def _ask(found: Found, key: str | None, say: Callable[[str, int, int], None], stop: threading.Event) -> Measured:
    with closing(Asker(found.url, found.model, key, stop)) as asker:
        return measure_inference(asker, found.where, say, stop)


def rounds(display: Display) -> Callable[[str, int, int], None]:
    """Return what tells of each round that begins."""

    def tell(stage: str, done: int, total: int) -> None:
        if done < total:
            display.say(f"{stage}: round {done + 1} of {total}")

    return tell


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)
