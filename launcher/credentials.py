"""The credentials between the services and Redis: made once by `init`, one directory a service in the volume.

Each service finds its own address with its password in `<service>/redis.url`, Redis the digests and rights in
`redis/users.acl`; each file belongs to its reader alone (0400), each directory to root, and each container mounts its
own directory and no other.

A host that joins this one's Redis (`R3MES_JOINED_NODES`) has two users of its own, whose addresses only root reads;
`r3mes init join` hands them over.

The addresses are the truth and the ACL file follows from them. Order: a missing or broken address gets a new password,
then the ACL file is written wherever it differs. So a crash at any point leaves what the next run ends right, and a
run over what is right writes nothing.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.errors import StoreError
from shared.redis_rights import DOWNLOADER, SERVICES, VERIFIER, acl_file, user_name
from shared.store.atomic import (
    HOSTILE_FLAGS,
    open_dir,
    read_hostile_bytes,
    replace_bytes,
    set_rights,
    sweep_temporaries,
)
from shared.store.layout import DOWNLOADER_UID, REDIS_UID, STORE_GID, VERIFIER_UID

Owner = tuple[int, int]

REDIS = "redis"
OWNERS: dict[str, Owner] = {
    DOWNLOADER: (DOWNLOADER_UID, STORE_GID),
    VERIFIER: (VERIFIER_UID, STORE_GID),
    REDIS: (REDIS_UID, REDIS_UID),
}
ROOT: Owner = (0, 0)
URL_FILE, ACL_FILE = "redis.url", "users.acl"
PLACE = "redis:6379"  # the service of docker-compose.yml

_FILE_MODE = 0o400
_DIRECTORY_MODE = 0o755
_PASSWORD_BYTES = 32
_FORM = r"[A-Za-z0-9_-]{43}"  # what token_urlsafe makes of them


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a run did: whose passwords are new, and whether Redis has to take over other rights."""

    given: bool
    made: tuple[str, ...]
    rights_changed: bool

    def __str__(self) -> str:
        if self.made:
            return f"new passwords for {' and '.join(self.made)}; one that runs takes its own at its next start"
        if self.given:
            return "the one that R3MES_REDIS_URL names"
        return (
            "rights changed; Redis takes them over by itself"
            if self.rights_changed
            else "passwords and rights in place"
        )


def prepare_credentials(
    root: Path,
    node: str,
    *,
    given: bool,
    joined: Sequence[str] = (),
    owners: dict[str, Owner] = OWNERS,
    root_owner: Owner = ROOT,
) -> Credentials | None:
    """Make what is missing below `root`, and correct what differs; None where the volume is not mounted.

    `given` says that the operator names another Redis: no passwords are made, and what is there stays. `joined` are the
    nodes of other hosts. Raises StoreError.
    """
    if not root.is_dir():
        return None
    users = {user_name(service): owners[service] for service in SERVICES}
    users |= {user_name(service, other): root_owner for other in joined for service in SERVICES}
    try:
        with open_dir(root) as volume:
            fcntl.flock(volume, fcntl.LOCK_EX)  # two that make passwords at once would not agree
            for name in (*users, REDIS):
                _prepare_directory(volume, name, root_owner)
            made = tuple(name for name, owner in users.items() if not given and _make_missing(root / name, owner))
            found = {name: password for name in users if (password := read_password(root / name)) is not None}
            text = acl_file(node, found, joined).encode()
            rights_changed = _settle(root / REDIS, ACL_FILE, text, owners[REDIS])
    except OSError as error:
        raise StoreError(
            f"cannot prepare {error.filename or root}: {error.strerror}",
            next_step="check that the disk has room, and run init as root with CHOWN, FOWNER and DAC_OVERRIDE",
        ) from error
    return Credentials(given, made, rights_changed)


def read_password(directory: Path) -> str | None:
    """Return the password in a service's address, None when there is none or it is not one that was made here."""
    content = read_hostile_bytes(directory / URL_FILE) or b""
    pattern = rf"redis://{directory.name}:(?P<password>{_FORM})@{re.escape(PLACE)}/0\n"
    match = re.fullmatch(pattern, content.decode("ascii", errors="replace"))
    return match["password"] if match else None


def _prepare_directory(volume: int, name: str, owner: Owner) -> None:
    try:
        os.mkdir(name, mode=0o700, dir_fd=volume)
        os.fsync(volume)
    except FileExistsError:
        pass  # its rights are looked at in any case
    with open_dir(name, dir_fd=volume) as directory:
        set_rights(directory, owner=owner, mode=_DIRECTORY_MODE)


def _make_missing(directory: Path, owner: Owner) -> bool:
    """See to a service's address; tell whether its password is new."""
    password = read_password(directory)
    is_new = password is None
    password = password or secrets.token_urlsafe(_PASSWORD_BYTES)
    _settle(directory, URL_FILE, f"redis://{directory.name}:{password}@{PLACE}/0\n".encode(), owner)
    return is_new


def _settle(directory: Path, name: str, content: bytes, owner: Owner) -> bool:
    """Let the file have this content, owner and mode; tell whether its content was another."""
    sweep_temporaries(directory, name)
    path = directory / name
    if read_hostile_bytes(path) != content:
        replace_bytes(path, content, mode=_FILE_MODE, owner=owner)
        return True
    descriptor = os.open(path, HOSTILE_FLAGS)
    try:
        set_rights(descriptor, owner=owner, mode=_FILE_MODE)
    finally:
        os.close(descriptor)
    return False
