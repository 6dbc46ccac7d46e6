"""Looks at a store without end, while others kill who works on it, and tells of every breach of I1 and I2.

Everything is read with a parser and a hash of its own, none of the services'. I1: each `verified/<64 hex>/*.gguf` is
hashed when it is new or its inode or ctime is another. I2, for models that are tracked: from when a journal said
`complete` and the bytes proved right, they are in incoming, or the verified name is there, or in low-space mode partial
and incoming together have them; and a verified name stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20
_PAUSE_SECONDS = 0.01
# A look that finds nothing right is repeated so often before it is a breach: names move between two system calls.
_LOOKS = 5

Key = tuple[int, int, int, int]


@dataclass
class Kept:
    """What is known of one tracked model. `holder`: the inode of its right bytes in incoming."""

    size: int
    holder: Key | None = None
    wrong: Key | None = None  # complete, and not these bytes: a lie
    complete_at: float | None = None
    verified_at: float | None = None


@dataclass
class StoreWatch:
    """`start` ▸ `track`, `forget` … ▸ `stop`. `violations` is empty as long as all is well."""

    root: Path
    violations: list[str] = field(default_factory=list)
    looks: int = 0
    hashed: int = 0
    completions: int = 0
    split: int = 0  # how often bytes were found in a partial and in incoming together
    verdict_seconds: list[float] = field(default_factory=list)
    _tracked: dict[str, Kept] = field(default_factory=dict)
    _known: dict[Path, Key] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="store-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look once more, then end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.look()

    def track(self, digest: str, size: int) -> None:
        """Hold the store to I2 for a digest from now on."""
        with self._lock:
            self._tracked[digest] = Kept(size)

    def forget(self, digest: str) -> None:
        """Do so no longer: somebody is about to remove it on purpose."""
        with self._lock:
            self._tracked.pop(digest, None)

    def is_verified(self, digest: str) -> bool:
        with self._lock:
            kept = self._tracked.get(digest)
            return kept is not None and kept.verified_at is not None

    def lies(self) -> set[str]:
        """Return the tracked digests of which complete data was seen that is something else."""
        with self._lock:
            return {digest for digest, kept in self._tracked.items() if kept.wrong is not None}

    def look(self) -> None:
        """Look at everything once."""
        with self._lock:
            verified = self._look_at_verified()
            for digest, kept in self._tracked.items():
                self._look_at(digest, kept, verified.get(digest, []))
            self.looks += 1

    def _run(self) -> None:
        try:
            while not self._stop.wait(_PAUSE_SECONDS):
                self.look()
        except Exception as error:  # a watch that died has seen nothing
            self.violations.append(f"the watch itself failed: {error!r}")
            raise

    # --- I1 ---

    def _look_at_verified(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for directory in _list(self.root / "verified"):
            if _DIGEST.fullmatch(directory.name):
                models = [path for path in _list(directory) if path.name.endswith(".gguf")]
                found[directory.name] = [path for path in models if self._is_there_and_right(path)]
        return found

    def _is_there_and_right(self, path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return False  # removed since the directory was read
        except OSError as error:
            self._say(f"I1: {path} cannot be read: {error}")
            return False
        try:
            key = _key(os.fstat(descriptor))
            if self._known.get(path) != key:
                self._known[path] = key
                found = _hash(descriptor)
                self.hashed += 1
                if found != path.parent.name:
                    self._say(f"I1: {path} has {key[2]} bytes of digest {found}")
        finally:
            os.close(descriptor)
        return True

    # --- I2 ---

    def _look_at(self, digest: str, kept: Kept, verified: list[Path]) -> None:
        if verified:
            if kept.verified_at is None:
                kept.verified_at = time.monotonic()
                if kept.complete_at is not None:
                    self.verdict_seconds.append(kept.verified_at - kept.complete_at)
            return
        if kept.verified_at is not None:
            self._confirm(digest, kept, f"I2: {digest} was verified and is gone")
        elif kept.holder is not None:
            self._confirm(digest, kept, f"I2: {digest} was complete and is neither in incoming nor verified")
        else:
            self._look_for_completion(digest, kept)

    def _look_for_completion(self, digest: str, kept: Kept) -> None:
        key = self._complete_data(digest)
        if key is None or key == kept.wrong:
            return
        if self._bytes_are_kept(digest, kept):
            kept.holder = key
            kept.complete_at = time.monotonic()
            self.completions += 1
        elif key == self._complete_data(digest) and not self._has_verified_name(digest):
            kept.wrong = key

    def _complete_data(self, digest: str) -> Key | None:
        """Return which data is complete by a journal that speaks of it."""
        incoming = self.root / "incoming" / digest
        journal = _document(incoming / "journal.json")
        with suppress(OSError):
            key = _key((incoming / "data").lstat())
            if journal.get("complete") is True and journal.get("ino") == key[0]:
                return key
        return None

    def _confirm(self, digest: str, kept: Kept, breach: str) -> None:
        """Tell of a breach, if it still is one when looked at closely."""
        for _ in range(_LOOKS):
            if self._has_verified_name(digest):
                return
            if kept.verified_at is None and self._holds(digest, kept):
                return
        if not any("Kept(" in known and digest in known for known in self.violations):
            self._say(f"{breach}: {kept}")

    def _has_verified_name(self, digest: str) -> bool:
        paths = _list(self.root / "verified" / digest)
        return any(self._is_there_and_right(path) for path in paths if path.name.endswith(".gguf"))

    def _holds(self, digest: str, kept: Kept) -> bool:
        """Tell whether the bytes that were seen to be right are there still."""
        assert kept.holder is not None
        for path in _data_names(self.root / "incoming" / digest):
            with suppress(OSError):
                key = _key(path.lstat())
                if key[0] != kept.holder[0]:
                    continue
                if key[2:] == kept.holder[2:] and self._partial_reaches(digest):
                    return True  # same inode, size and mtime
                if self._bytes_are_kept(digest, kept):
                    kept.holder = key
                    return True
        return False

    def _partial_reaches(self, digest: str) -> bool:
        """Tell whether a partial, if there is one, is as long as its note says."""
        partials = self.root / "verified" / ".partial"
        durable = _document(partials / f"{digest}.json").get("durable")
        with suppress(OSError):
            return not isinstance(durable, int) or (partials / digest).stat().st_size >= durable
        return durable in {None, 0}

    def _bytes_are_kept(self, digest: str, kept: Kept) -> bool:
        """Hash what partial and incoming hold together; again while the note between them moves."""
        while True:
            note = _document(self.root / "verified" / ".partial" / f"{digest}.json")
            is_right = self._hash_parts(digest, kept.size, note.get("durable"))
            if is_right or note == _document(self.root / "verified" / ".partial" / f"{digest}.json"):
                return is_right

    def _hash_parts(self, digest: str, size: int, durable: object) -> bool:
        at = durable if isinstance(durable, int) else 0
        parts = [(self.root / "verified" / ".partial" / digest, 0, at)] if at else []
        names = _data_names(self.root / "incoming" / digest)
        if names:
            parts.append((names[0], at, size))
        whole, hashed = hashlib.sha256(), 0
        for path, start, end in parts:
            with suppress(OSError), path.open("rb", buffering=0) as file:
                file.seek(start)
                while (left := end - start) > 0 and (chunk := file.read(min(_CHUNK, left))):
                    whole.update(chunk)
                    start += len(chunk)  # noqa: PLW2901 - how far this part is
                    hashed += len(chunk)
        if at and hashed == size:
            self.split += 1
        return whole.hexdigest() == digest

    def _say(self, violation: str) -> None:
        if len(self.violations) < 50:
            self.violations.append(violation)


def _key(status: os.stat_result) -> Key:
    """Return what tells one state of a file from another: inode, ctime, size, mtime."""
    if not stat.S_ISREG(status.st_mode):
        return (status.st_ino, -1, -1, -1)
    return (status.st_ino, status.st_ctime_ns, status.st_size, status.st_mtime_ns)


def _hash(descriptor: int) -> str:
    whole = hashlib.sha256()
    while chunk := os.read(descriptor, _CHUNK):
        whole.update(chunk)
    return whole.hexdigest()


def _list(directory: Path) -> list[Path]:
    with suppress(OSError):
        return list(directory.iterdir())
    return []


def _data_names(incoming: Path) -> list[Path]:
    return sorted(path for path in _list(incoming) if path.name == "data" or path.name.startswith(".claimed-"))


def _document(path: Path) -> dict[str, object]:
    with suppress(OSError, ValueError):
        document = json.loads(path.read_bytes())
        if isinstance(document, dict):
            return document
    return {}
