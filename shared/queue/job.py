"""The one kind of job: `services.verifier.job.verify(<64 hex>)`, and the refusal of every other.

Invariant: a `VerifyJob` that was read from Redis holds a digest and nothing that RQ would import, call, send, repeat,
unpickle or unpack beyond 1 KiB. Order: the id, the names and lengths of the fields, the data, then RQ's own `restore`.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from enum import StrEnum
from typing import cast

import redis
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

FUNCTION = "services.verifier.job.verify"

NO_TIMEOUT = -1
QUEUED_SECONDS = 24 * 3600  # a job that nobody took: the reconciler enqueues another
RESULT_SECONDS = 600
FAILURE_SECONDS = 3600

_JOB_ID = re.compile(r"verify-(?P<node>[a-z0-9-]{1,63})_(?P<digest>[0-9a-f]{64})_[0-9]{1,20}")
_MAX_DATA_BYTES = 1024
_MAX_FIELD_BYTES = 256
_FIELDS = frozenset(
    {
        *("data", "created_at", "enqueued_at", "started_at", "ended_at", "last_heartbeat", "worker_name", "origin"),
        *("description", "status", "timeout", "result_ttl", "failure_ttl", "ttl"),
    }
)
# What RQ writes, empty, for every job. Anything in them, and any field beyond these and the above, is not ours.
_EMPTY_FIELDS = frozenset({"success_callback_name", "failure_callback_name", "stopped_callback_name", "group_id"})


class JobRefusal(StrEnum):
    """Why a job was not run: the label `reason` of `r3mes_jobs_refused_total`."""

    ID = "id"
    ABSENT = "absent"
    FIELD = "field"
    DATA = "data"
    MALFORMED = "malformed"
    NOT_PINNED = "not_pinned"


class JobRefusedError(NoSuchJobError):
    """A job that is not exactly `verify(<64 hex>)`; RQ takes it for one that does not exist."""

    def __init__(self, reason: JobRefusal) -> None:
        super().__init__(f"refused: {reason}")
        self.reason = reason


def queue_name(node: str) -> str:
    """Return the name of a node's queue."""
    return f"verify:{node}"


class VerifyJob(Job):
    """The one kind of job that exists here. Reading any other raises JobRefusedError."""

    @classmethod
    def fetch(
        cls,
        id: str,  # noqa: A002 - RQ's name
        connection: redis.Redis | None = None,
        serializer: object = None,  # noqa: ARG003 - a job of ours is JSON, whatever the caller thinks
    ) -> VerifyJob:
        """Read a job; raises JobRefusedError for every job that is not ours, whatever its id looks like."""
        match_id(id)
        job = cls(id, connection=connection, serializer=JSONSerializer)
        try:
            raw = job.connection.hgetall(job.key)
        except redis.ResponseError as error:  # another type under the job's key
            raise JobRefusedError(JobRefusal.MALFORMED) from error
        if not raw:
            raise JobRefusedError(JobRefusal.ABSENT)
        job.restore(cast("dict[bytes, bytes]", raw))
        return job

    def restore(self, raw_data: Mapping[bytes, bytes]) -> None:
        """Take over what is stored, if it is exactly a job of ours; raises JobRefusedError before RQ looks at it."""
        match = match_id(self.id)
        fields = _check_fields(raw_data)
        _check_data(fields.get(b"data", b""), match["digest"])
        try:
            super().restore(fields)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise JobRefusedError(JobRefusal.MALFORMED) from error
        if self.origin != queue_name(match["node"]):
            raise JobRefusedError(JobRefusal.FIELD)
        # Whatever was stored: no alarm signal, and nothing is kept for longer than we said.
        self.timeout = NO_TIMEOUT
        self.ttl, self.result_ttl, self.failure_ttl = QUEUED_SECONDS, RESULT_SECONDS, FAILURE_SECONDS
        self.description = f"verify {match['digest']}"


def match_id(job_id: object) -> re.Match[str]:
    """Return the groups `node` and `digest` of a job's id; raises JobRefusedError when it is not one of ours."""
    match = _JOB_ID.fullmatch(job_id) if isinstance(job_id, str) else None
    if match is None:
        raise JobRefusedError(JobRefusal.ID)
    return match


def _check_fields(raw: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for key, value in raw.items():
        name = key.decode("ascii", errors="replace")
        if name in _EMPTY_FIELDS and not value:
            continue
        if name not in _FIELDS:
            raise JobRefusedError(JobRefusal.FIELD)
        if len(value) > (_MAX_DATA_BYTES if name == "data" else _MAX_FIELD_BYTES):
            raise JobRefusedError(JobRefusal.DATA if name == "data" else JobRefusal.MALFORMED)
        fields[key] = value
    return fields


def _check_data(packed: bytes, digest: str) -> None:
    inflate = zlib.decompressobj()
    try:
        plain = inflate.decompress(packed, _MAX_DATA_BYTES)  # never more, however small it was packed
        document = json.loads(plain) if inflate.eof and not inflate.unused_data else None
    except (zlib.error, ValueError, RecursionError) as error:
        raise JobRefusedError(JobRefusal.DATA) from error
    if document != [FUNCTION, None, [digest], {}]:
        raise JobRefusedError(JobRefusal.DATA)
