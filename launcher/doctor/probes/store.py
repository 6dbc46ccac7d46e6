"""The store on the disk: room, file system, rights, and what is verified. Only unnamed files are written, for a try."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from launcher.doctor.judges.store import (
    Directory,
    FileSystem,
    Held,
    KeptFile,
    Room,
    judge_file_system,
    judge_files,
    judge_model,
    judge_rights,
    judge_room,
)
from launcher.doctor.subject import Subject
from launcher.doctor.verdict import Status, Verdict, ok, skipped
from services.downloader.run_once import Mode, needed_bytes
from shared.acceptance.store_root import check_store
from shared.genesis import ModelPin
from shared.store.layout import DIRECTORIES, TRUST_FILE_MODE, VERIFIED_FILE_MODE, VERIFIER_UID, StoreLayout
from shared.store.verified import open_verified

_MOUNTS = Path("/proc/self/mountinfo")
_FICLONE = 0x40049409
_BLOCK = 4096
_STAT_BLOCK = 512
_BUFFER = 4 * 1024**2
_MOST_RECORDS = 20


def check_room(subject: Subject) -> list[Verdict]:
    """Measure what is free for what is still to come."""
    layout, pins = subject.layout, subject.outstanding
    status = os.statvfs(existing(layout.root))
    own = sum(_allocated(layout.data(pin.sha256)) + _allocated(layout.partial_file(pin.sha256)) for pin in pins)
    size = sum(pin.size_bytes or pin.required_bytes for pin in pins)
    floor = sum(pin.required_bytes for pin in pins)
    room = Room(
        usable=status.f_bavail * status.f_frsize + own,
        for_two=needed_bytes(size, floor, Mode.NORMAL) if pins else 0,
        for_one=needed_bytes(size, floor, Mode.LOW_SPACE) if pins else 0,
        models=tuple(pin.model_name for pin in pins),
    )
    return [judge_room(room)]


def check_file_system(subject: Subject) -> list[Verdict]:
    """See what kind it is, and try what a verification does there."""
    place = existing(subject.layout.root)
    status = os.statvfs(place)
    unnamed, clones = _try_unnamed(place)
    is_read_only = bool(status.f_flag & os.ST_RDONLY)
    return [judge_file_system(FileSystem(str(place), file_system_of(place), is_read_only, unnamed, clones))]


def check_kind(subject: Subject) -> list[Verdict]:
    """Read `store.json`; raises StoreError when this process may not use the store."""
    root = subject.layout.root
    check_store(subject.layout, subject.kind)
    if not subject.in_use:
        return [skipped(f"{root} is not a store yet; the first start makes it", root=str(root))]
    return [ok(f"{root}, a {subject.kind} store", root=str(root), kind=subject.kind)]


def check_rights(subject: Subject) -> list[Verdict]:
    """Look at owner and mode of each directory, of what was accepted, and of what is verified."""
    directories = [_directory(subject.layout, rights.name) for rights in DIRECTORIES]
    user = os.geteuid()
    wrong = judge_files(list(_files(subject)), user=user)
    found = judge_rights(directories, is_container=subject.in_container, user=user, in_use=subject.in_use)
    return [each for each in found if each.status is not Status.OK] + wrong if wrong else found


def check_models(subject: Subject) -> list[Verdict]:
    """Look at each pinned model, and with `--deep` read it."""
    if not subject.pins:
        return [skipped("no genesis says what should be here")]
    return [judge_model(_held(subject, pin)) for pin in subject.pins]


def existing(path: Path) -> Path:
    """Return the nearest directory above that is there."""
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def file_system_of(place: Path) -> str:
    """Return the type of the file system, empty where the kernel does not say."""
    target, found, longest = str(place.resolve()), "", -1
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        mount = _unescaped(fields[4]) if len(fields) > 4 else ""  # noqa: PLR2004  proc(5): the mount point
        if len(mount) >= longest and (target == mount or target.startswith(mount.rstrip("/") + "/")):
            found, longest = after.split()[0] if after.split() else "", len(mount)
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _try_unnamed(place: Path) -> tuple[bool | None, bool | None]:
    """Make two unnamed files and clone one into the other; None: this user may not write there."""
    if not os.access(place, os.W_OK):
        return None, None
    try:
        source = os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return False, None
    try:
        os.write(source, bytes(_BLOCK))
        target = os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError:
            return True, False
        finally:
            os.close(target)
    except OSError:
        return True, None  # no room for a block
    finally:
        os.close(source)
    return True, True


def _directory(layout: StoreLayout, name: str) -> Directory:
    wanted = next(rights for rights in DIRECTORIES if rights.name == name)
    path = layout.root / name
    try:
        status = path.lstat()
    except OSError:
        return Directory(wanted, None)
    return Directory(
        wanted,
        (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)),
        is_writable=os.access(path, os.W_OK | os.X_OK),
    )


def _files(subject: Subject) -> Iterator[KeptFile]:
    layout, container = subject.layout, subject.in_container
    kept = [(path, 0, TRUST_FILE_MODE) for path in (layout.genesis, layout.accepted)]
    for pin in subject.pins:
        paths = (layout.verified_file(pin.sha256, pin.file_name), layout.receipt(pin.sha256))
        kept += [(path, VERIFIER_UID, VERIFIED_FILE_MODE) for path in paths]
    for path, owner, mode in kept:
        with suppress(OSError):
            status = path.lstat()
            name = str(path.relative_to(layout.root))
            wanted = owner if container else None
            yield KeptFile(name, status.st_uid, stat.S_IMODE(status.st_mode), wanted, mode)


def _held(subject: Subject, pin: ModelPin) -> Held:
    layout, digest = subject.layout, pin.sha256
    rejected = sum(os.path.lexists(layout.rejected_file(digest, number)) for number in range(1, _MOST_RECORDS + 1))
    with open_verified(layout, digest, pin.file_name) as verified:
        if verified is None:
            return Held(pin, None, rejected=rejected, incoming=_allocated(layout.data(digest)))
        size = verified.status.st_size
        found = _hash(subject, verified.descriptor, pin.model_name, size) if subject.deep else None
        mode = stat.S_IMODE(verified.status.st_mode)
        return Held(pin, size, mode, verified.receipt is not None, found, rejected)


def _hash(subject: Subject, descriptor: int, model: str, size: int) -> str:
    digest, done = hashlib.sha256(), 0
    while (chunk := os.pread(descriptor, _BUFFER, done)) and not subject.stop.is_set():
        digest.update(chunk)
        done += len(chunk)
        subject.on_bytes(model, done, size)
    return digest.hexdigest()


def _allocated(path: Path) -> int:
    with suppress(OSError):
        return path.lstat().st_blocks * _STAT_BLOCK
    return 0
