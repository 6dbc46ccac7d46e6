"""Which process has a port of this host, by the kernel's tables: as much as this user may see."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"
_FIELDS = 10  # proc_net_tcp(5): local address, state, user and inode are among the first ten


def owner_of(port: int) -> str:
    """Say who listens on `port`: name and number of a process, or a user's name; empty where nothing is known."""
    found = _listener(port)
    if found is None:
        return ""
    inode, uid = found
    return _process_of(inode) or f"a process of user {_user(uid)}"


def _listener(port: int) -> tuple[str, int] | None:
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if len(fields) < _FIELDS or fields[3] != _LISTEN:
                    continue
                if int(fields[1].rpartition(":")[2], 16) == port:
                    return fields[9], int(fields[7])
    return None


def _process_of(inode: str) -> str:
    wanted = f"socket:[{inode}]"
    for directory in _PROC.iterdir():
        if not directory.name.isdigit():
            continue
        with suppress(OSError):  # another user's, or gone
            for descriptor in (directory / "fd").iterdir():
                with suppress(OSError):
                    if os.readlink(descriptor) == wanted:  # noqa: PTH115  compared as text
                        return f"{_name(directory)} (pid {directory.name})"
    return ""


def _name(directory: Path) -> str:
    try:
        return (directory / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a process"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
