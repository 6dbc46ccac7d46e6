"""strace: what a process does to a store, call by call, and one of these calls made to fail or to be its last.

strace counts the calls of each name in each thread from the moment it is attached; `Call.ordinal` is that number, so
that the n-th call of a recording is the n-th call of the next run that does the same.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

# Whatever takes a path or a descriptor; what does not lead to the store is left out afterwards.
TRACED = "%file,%desc,%fstat,%statfs,%fstatfs"
SYNCS = frozenset({"fsync", "fdatasync"})
END_SECONDS = 60.0
TELL_AGAIN_SECONDS = 1.0
_BEGUN = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\((?P<arguments>.*)")
_RESUMED = re.compile(r"(?P<thread>\d+) +<\.\.\. \w+ resumed>(?P<rest>.*)")
_FILES = re.compile(r"""<([^>]*)>|"([^"]+)\"""")
_VARIES = re.compile(r"(?<=#)\d+|(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{16})(?![0-9a-f])")
_UNFINISHED = "<unfinished ...>"


class Fault(StrEnum):
    """What happens at a call, in strace's words. The call itself is not made, whichever it is.

    A process killed before call n has made call n - 1: so KILL is also the death right after each call.
    """

    KILL = "signal=SIGKILL"
    ENOSPC = "error=ENOSPC"
    EIO = "error=EIO"


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a traced thread, the `ordinal`-th of its name there; `text`: with arguments and result."""

    thread: int
    name: str
    ordinal: int
    text: str

    @property
    def is_injected(self) -> bool:
        return "(INJECTED)" in self.text

    @property
    def descriptor(self) -> str:
        """The first argument, for calls that begin with a descriptor."""
        return re.split(r"[<,)]", self.text.partition("(")[2], maxsplit=1)[0]

    @property
    def shape(self) -> str:
        """Name and files, without what differs between two runs: the store's root, inodes, random names."""
        arguments = (self.text.rpartition(" = ")[0] or self.text).replace(_UNFINISHED, "")
        files = [file or path for file, path in _FILES.findall(arguments)]
        below = [_VARIES.sub("#", re.sub(r".*/models/", "", file)) for file in files if not file.startswith("/proc/")]
        return f"{self.name}({', '.join(below)})"

    def leads_to(self, root: Path) -> bool:
        """Whether a path, a descriptor's path or a directory's descriptor among arguments and result is in `root`."""
        return f"{root}/" in self.text


@contextmanager
def traced(pid: int, trace: Path, inject: str = "") -> Iterator[Callable[[], None]]:
    """Trace a process, all its threads, and make happen what `inject` says, until the process has ended.

    Yields what lets go of a process that lives on, and waits until it has; of one that dies it would wait for the
    wrong thread, for ever.
    """
    command = ["strace", "-f", "-y", "-s", "0", "-o", str(trace), "-e", f"trace={TRACED}", "-p", str(pid)]
    if inject:
        command += ["-e", f"inject={inject}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as strace:
        assert strace.stderr is not None
        said = strace.stderr.readline().decode()
        assert "attached" in said, said
        try:
            yield lambda: let_go(strace)
            strace.wait(END_SECONDS)
        except BaseException:
            strace.kill()
            raise


def let_go(strace: subprocess.Popen[bytes]) -> None:
    """End strace before its process ends; raises `subprocess.TimeoutExpired` if it does not end.

    A signal between its look at what has interrupted it and its wait for the process is not seen before the next event:
    so it is told again.
    """
    until = time.monotonic() + END_SECONDS
    while strace.poll() is None:
        strace.terminate()
        try:
            strace.wait(TELL_AGAIN_SECONDS)
        except subprocess.TimeoutExpired:
            if time.monotonic() > until:
                raise


def injection(name: str, ordinal: int, fault: Fault) -> str:
    return f"{name}:{fault}:when={ordinal}"


def read_trace(trace: Path) -> list[Call]:
    """Return every call of a trace in the order of their beginnings."""
    calls: list[Call] = []
    counts: Counter[tuple[int, str]] = Counter()
    unfinished: dict[int, int] = {}
    for line in trace.read_text(errors="replace").splitlines():
        if (begun := _BEGUN.fullmatch(line)) is not None:
            thread, name = int(begun["thread"]), begun["name"]
            counts[thread, name] += 1
            if line.endswith(_UNFINISHED):
                unfinished[thread] = len(calls)
            text = f"{name}({begun['arguments'].removesuffix(_UNFINISHED)}"
            calls.append(Call(thread, name, counts[thread, name], text))
        elif (resumed := _RESUMED.fullmatch(line)) is not None:
            at = unfinished.pop(int(resumed["thread"]), None)
            if at is not None:
                call = calls[at]
                calls[at] = Call(call.thread, call.name, call.ordinal, call.text + resumed["rest"])
    return calls


def retried_sync(calls: Iterable[Call]) -> Call | None:
    """Return the fsync of a descriptor whose fsync was made to fail before, if there is one."""
    failed: set[str] = set()
    for call in calls:
        if call.name == "close" and not call.is_injected:
            failed.discard(call.descriptor)
        elif call.name in SYNCS and call.descriptor in failed:
            return call
        elif call.name in SYNCS and call.is_injected:
            failed.add(call.descriptor)
    return None
