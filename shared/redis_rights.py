"""What each service may do in Redis: the lines of an ACL file. Pure, and in Redis 6.2's dialect, which 8 reads as well.

Invariants: nobody without a name may do anything; a service reaches the keys and channels of its own node alone, by
the commands that it sends and no others, none of which names keys by a pattern, runs a script, changes Redis itself or
speaks to RQ's workers; passwords stand there as SHA-256 digests only.

`acl_file(node, {"downloader": password, "verifier": password})` → the file's text; another host's services, which have
this Redis in common, are users of their own (`user_name`). A right that a service lacks shows
in `ACL LOG`; a right that it does not need is a line too many here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

DOWNLOADER = "downloader"
VERIFIER = "verifier"
SERVICES = (DOWNLOADER, VERIFIER)
# Anyone may be this user, who may ask whether Redis answers and nothing else: a healthcheck needs no secret.
HEALTH = "health"

_COMMANDS = {
    DOWNLOADER: "ping multi exec set get publish subscribe sadd hset expire rpush lrange zrange",
    VERIFIER: "ping multi exec watch unwatch set publish client|setname client|info exists del expire persist"
    " hset hgetall hincrby hincrbyfloat sadd srem smembers blpop lrem llen lindex"
    " zadd zrem zcard zrangebyscore zremrangebyscore xadd",
}
_NO_RIGHTS = "resetkeys resetchannels -@all"


def user_name(service: str, node: str | None = None) -> str:
    """Return a service's name in Redis: its own, and with its host's where that is another one than Redis's."""
    return service if node is None else f"{service}-{node}"


def acl_file(node: str, passwords: Mapping[str, str], joined: Collection[str] = ()) -> str:
    """Return the text of Redis's ACL file; a user without a password is not in it.

    `joined` are the nodes of other hosts; `passwords` are by `user_name`.
    """
    users = [(user_name(service), service, node) for service in SERVICES]
    users += [(user_name(service, other), service, other) for other in joined for service in SERVICES]
    lines = [
        f"user default off resetpass {_NO_RIGHTS}",
        f"user {HEALTH} on nopass {_NO_RIGHTS} +ping",
        *(acl_line(user, passwords[user], service, place) for user, service, place in users if user in passwords),
    ]
    return "\n".join(lines) + "\n"


def acl_line(user: str, password: str, service: str, node: str) -> str:
    """Return the line of one user, who is this service of this node."""
    digest = hashlib.sha256(password.encode()).hexdigest()
    return f"user {user} on resetpass #{digest} {_NO_RIGHTS} {' '.join(service_rights(service, node))}"


def service_rights(service: str, node: str) -> tuple[str, ...]:
    """Return keys (`~`), channels (`&`) and commands (`+`) of a service."""
    keys = _downloader_keys(node) if service == DOWNLOADER else _verifier_keys(node)
    commands = _COMMANDS[service].split()
    return (*(f"~{key}" for key in keys), f"&r3mes:{node}:*", *(f"+{command}" for command in commands))


def _downloader_keys(node: str) -> tuple[str, ...]:
    """Enqueue a job, see those that wait and run, exchange hints."""
    return (
        "rq:queues",
        f"rq:queue:verify:{node}",
        f"rq:job:verify-{node}_*",
        f"rq:job::verify-{node}_*",  # the dependencies that RQ would keep
        f"rq:wip:verify:{node}",
        f"r3mes:{node}:*",
    )


def _verifier_keys(node: str) -> tuple[str, ...]:
    """Take and end jobs, register as a worker, keep the registries, exchange hints."""
    return (
        "rq:workers",
        f"rq:workers:verify:{node}",
        f"rq:worker:verifier-{node}_*",
        f"rq:queue:verify:{node}",
        f"rq:queue:verify:{node}:intermediate",
        f"rq:job:verify-{node}_*",
        f"rq:job::verify-{node}_*",
        f"rq:execution:verify-{node}_*",
        f"rq:executions:verify-{node}_*",
        f"rq:results:verify-{node}_*",
        *(f"rq:{registry}:verify:{node}" for registry in ("wip", "finished", "failed")),
        f"r3mes:{node}:*",
    )
