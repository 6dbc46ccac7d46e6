"""The verifier's metrics: names and labels of the contract, every label value there from the start."""

from __future__ import annotations

import math
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.metrics import CommonMetrics
from shared.queue import JobRefusal

# From a test's file to a model of 400 GB on a slow disk, in seconds.
_DURATION_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
JOB_STATUSES = ("queued", "started", "finished", "failed")


class Result(StrEnum):
    """Label `result` of verifications and of the scrub."""

    MATCH = "match"
    MISMATCH = "mismatch"
    ERROR = "error"


class Deletion(StrEnum):
    """Label `reason` of deletions."""

    MISMATCH = "mismatch"
    TAMPERED = "tampered"
    BYTES_LOST = "bytes_lost"
    RETENTION = "retention"
    ORPHAN = "orphan"


class VerifierMetrics:
    """All metrics of one verifier process, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.common = CommonMetrics(registry)
        self.verifications = Counter(
            "r3mes_verifications", "Verifications by how they ended.", ["result"], registry=registry
        )
        self.duration = Histogram(
            "r3mes_verification_duration_seconds",
            "From the first byte that the job read to the end of promotion or deletion.",
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        self.verified_bytes = Counter("r3mes_verified_bytes", "Bytes that were copied and hashed.", registry=registry)
        self.promotions = Counter("r3mes_promotions", "Files that entered verified/.", registry=registry)
        self.deletions = Counter(
            "r3mes_deletions", "Files that were deleted, by reason.", ["reason"], registry=registry
        )
        self.jobs_refused = Counter(
            "r3mes_jobs_refused", "Jobs that were not run, by reason.", ["reason"], registry=registry
        )
        self.scrub_files = Counter(
            "r3mes_scrub_files", "Verified files that were read again, by result.", ["result"], registry=registry
        )
        self.queue_jobs = Gauge(
            "r3mes_verify_queue_jobs",
            "Jobs of the verify queue, as RQ counts them; NaN while Redis is away.",
            ["status"],
            registry=registry,
        )
        self.queue_oldest = Gauge(
            "r3mes_verify_queue_oldest_seconds",
            "How long the job at the front has waited; NaN while Redis is away.",
            registry=registry,
        )
        self.redis_up = Gauge("r3mes_redis_up", "Whether Redis answers (1) or not (0).", registry=registry)
        for result in Result:
            self.verifications.labels(result=result)
            self.scrub_files.labels(result=result)
        for reason in Deletion:
            self.deletions.labels(reason=reason)
        for refusal in JobRefusal:
            self.jobs_refused.labels(reason=refusal)
        self.forget_queue()

    def forget_queue(self) -> None:
        """Say that nobody knows how long the queue is."""
        for status in JOB_STATUSES:
            self.queue_jobs.labels(status=status).set(math.nan)
        self.queue_oldest.set(math.nan)

    def count_refused(self, reason: JobRefusal) -> None:
        """Count a job that was not run."""
        self.jobs_refused.labels(reason=reason).inc()
