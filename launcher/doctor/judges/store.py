"""The store: room, file system, kind, rights, and what lies verified in it. Pure."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.filesize import decimal

from launcher.doctor.verdict import Verdict, failed, ok, skipped, warning
from shared.errors import DiskFullError, ExitCode
from shared.genesis import ModelPin
from shared.store.layout import VERIFIED_FILE_MODE, DirectoryRights

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs", "beegfs"}
    | {f"fuse.{name}" for name in ("sshfs", "glusterfs", "s3fs", "rclone", "cephfs", "mergerfs")}
)
IN_MEMORY = frozenset({"tmpfs", "ramfs"})


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that downloads may count on, and what they need for two copies and for one."""

    usable: int
    for_two: int
    for_one: int
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileSystem:
    """`place` is where the store is or will be; None: it could not be tried."""

    place: str
    kind: str
    is_read_only: bool
    unnamed_files: bool | None
    clones: bool | None


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of the store as it is; `status` is (uid, gid, mode), None where there is none."""

    wanted: DirectoryRights
    status: tuple[int, int, int] | None
    is_writable: bool = True


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file that nobody may change: what it is (uid, mode), and what it should be; a uid of None: this user's."""

    name: str
    uid: int
    mode: int
    wanted_uid: int | None
    wanted_mode: int


@dataclass(frozen=True, slots=True)
class Held:
    """What the store holds of a pin. `digest` is what its bytes have, None: they were not read."""

    pin: ModelPin
    size: int | None
    mode: int = VERIFIED_FILE_MODE
    has_receipt: bool = False
    digest: str | None = None
    rejected: int = 0
    incoming: int = 0


def judge_room(room: Room) -> Verdict:
    """There must be room for one copy of what is not verified yet; room for two is better."""
    free = f"{decimal(room.usable)} usable"
    details: dict[str, Any] = {
        "usable_bytes": room.usable,
        "for_two_bytes": room.for_two,
        "for_one_bytes": room.for_one,
    }
    if not room.models:
        return ok(f"{free}; nothing is left to download", **details)
    if room.usable < room.for_one:
        missing = room.for_one - room.usable
        error = DiskFullError(
            f"{free}, {decimal(missing)} too few for {', '.join(room.models)}",
            missing_bytes=missing,
            next_step=f"free {decimal(missing)} (`r3mes gc` shows what nobody pins), or set R3MES_MODELS_DIR elsewhere",
        )
        return failed(error.message, error.next_step, error.exit_code, **details, missing_bytes=missing)
    if room.usable < room.for_two:
        return warning(
            f"{free}: room for one copy, downloads run in low-space mode",
            f"free {decimal(room.for_two - room.usable)} more for two copies; it works without",
            **details,
        )
    return ok(f"{free}, room for two copies of what is still to come", **details)


def judge_file_system(found: FileSystem) -> Verdict:
    """A local one that can be written, keeps what it is given, and has unnamed files."""
    details: dict[str, Any] = {
        "place": found.place,
        "type": found.kind,
        "unnamed_files": found.unnamed_files,
        "clones": found.clones,
    }
    if found.is_read_only:
        return failed(
            f"{found.place} is on a read-only file system ({found.kind})",
            "mount it writable, or set R3MES_MODELS_DIR elsewhere",
            ExitCode.CONFIGURATION,
            **details,
        )
    if found.kind in NETWORK_FILE_SYSTEMS:
        return warning(
            f"{found.kind}, over a network: leases and fsync promise less there, and verification waits for it",
            "a local disk for R3MES_MODELS_DIR, one store a host",
            **details,
        )
    if found.kind in IN_MEMORY:
        return warning(f"{found.kind}: models are gone after a restart", "a disk for R3MES_MODELS_DIR", **details)
    traits = ["copies are clones" if found.clones else "copies are written"]
    if found.unnamed_files is False:
        traits.append("no unnamed files: copies lie in verified/.partial while they grow")
    return ok(f"{found.kind}; {', '.join(traits)}", **details)


def judge_rights(found: Sequence[Directory], *, is_container: bool, user: int, in_use: bool) -> list[Verdict]:
    """Each directory with the owner and mode of the design's table; on a host owned by this user."""
    if not in_use and all(each.status is None for each in found):
        return [skipped("there is no store yet; the first start makes it")]
    wrong = [verdict for each in found if (verdict := _judge_directory(each, user, is_container=is_container))]
    return wrong or [ok(f"{len(found)} directories as they should be")]


def _judge_directory(each: Directory, user: int, *, is_container: bool) -> Verdict | None:
    name, wanted = each.wanted.name, each.wanted
    again = "`docker compose run --rm --no-deps init`" if is_container else "`r3mes init`"
    if each.status is None:
        return warning(f"{name}/ is not there", f"{again} makes it", about=name)
    uid, gid, mode = each.status
    details: dict[str, Any] = {"uid": uid, "gid": gid, "mode": f"{mode:04o}"}
    if is_container and (uid, gid, mode) != (wanted.uid, wanted.gid, wanted.mode):
        return failed(
            f"{name}/ is {uid}:{gid} {mode:04o}, wanted {wanted.uid}:{wanted.gid} {wanted.mode:04o}",
            f"{again} corrects it",
            ExitCode.CONFIGURATION,
            about=name,
            **details,
        )
    # In a container `init` runs this, which may write everywhere.
    return None if is_container else _judge_on_host(each, user, details, again)


def _judge_on_host(each: Directory, user: int, details: dict[str, Any], again: str) -> Verdict | None:
    name, wanted = each.wanted.name, each.wanted
    uid, gid, mode = each.status or (user, user, wanted.mode)
    if not each.is_writable:
        return failed(
            f"{name}/ cannot be written by this user (it is {uid}:{gid} {mode:04o})",
            f"run everything as its owner; or, as root, give the store to this user: chown -R {user}",
            ExitCode.CONFIGURATION,
            about=name,
            **details,
        )
    if uid != user:
        return warning(
            f"{name}/ belongs to user {uid}, this is {user}",
            "run all services and `r3mes` as one user",
            about=name,
            **details,
        )
    if mode != wanted.mode:
        return warning(f"{name}/ has mode {mode:04o}, wanted {wanted.mode:04o}", f"{again} corrects it", about=name)
    return None


def judge_files(found: Sequence[KeptFile], *, user: int) -> list[Verdict]:
    """What was accepted and what is verified belongs to who writes it, and nobody else may; what is right is silent."""
    verdicts = []
    for each in found:
        owner = user if each.wanted_uid is None else each.wanted_uid
        if (each.uid, each.mode) != (owner, each.wanted_mode):
            verdicts.append(
                warning(
                    f"{each.name} belongs to user {each.uid} with mode {each.mode:04o}, "
                    f"wanted user {owner} and {each.wanted_mode:04o}",
                    f"as root: chown {owner} and chmod {each.wanted_mode:04o} on it; who changed it?",
                    about=each.name,
                )
            )
    return verdicts


def judge_model(held: Held) -> Verdict:
    """What is verified must have its receipt, and (`--deep`) its digest."""
    pin, name = held.pin, held.pin.model_name
    details: dict[str, Any] = {
        "sha256": pin.sha256,
        "size_bytes": held.size,
        "found_sha256": held.digest,
        "rejected": held.rejected,
    }
    if held.size is None:
        return _judge_absent(held, details)
    if held.digest is not None and held.digest != pin.sha256:
        return failed(
            "its bytes are not the pinned ones",
            "start the verifier: it removes the file, and it is fetched again; who could write there?",
            ExitCode.INTEGRITY,
            about=name,
            **details,
        )
    if not held.has_receipt:
        return warning(
            "verified, but its receipt does not fit: something touched the file",
            "the verifier hashes it again at its start; `r3mes doctor --deep` does it now",
            about=name,
            **details,
        )
    if stat.S_IMODE(held.mode) != VERIFIED_FILE_MODE:
        return warning(f"its mode is {held.mode:04o}, wanted 0444", "chmod 0444, as nobody writes there", about=name)
    how = "digest read and right" if held.digest else "the receipt fits (--deep reads the bytes)"
    return ok(f"verified, {decimal(held.size)}; {how}", about=name, **details)


def _judge_absent(held: Held, details: dict[str, Any]) -> Verdict:
    name = held.pin.model_name
    if held.rejected:
        return warning(
            f"not verified; wrong bytes were deleted {held.rejected} times",
            "compare the pin with what its publisher says; `r3mes status` has the reason",
            about=name,
            **details,
        )
    if held.incoming:
        return ok(f"{decimal(held.incoming)} of it have come", about=name, **details)
    return ok("not here yet; a start downloads it", about=name, **details)
