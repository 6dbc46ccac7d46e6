"""The only door to RQ: a job carries a digest and nothing else.

RQ imports whatever dotted name stands in a job, in its callbacks and webhooks, so whoever may write to Redis could run
code in the verifier. Here a job is read only if it is exactly `verify(<64 hex>)` under an id that names the same
digest; everything else is refused before RQ sees it (`job`), counted, and the worker lives on (`worker`).

Downloader: `VerifyQueue(link, node).enqueue(digest)`. Verifier: `run_worker(link, node, stop, on_refused=...)`, which
serves until `stop` is set, whatever happens to Redis. Disk is the truth: a job that is lost is enqueued again by the
reconciler, so nothing here tries to be exact where being late or double is harmless.
"""

from shared.queue.job import FUNCTION, JobRefusal, JobRefusedError, VerifyJob
from shared.queue.verify_queue import VerifyQueue
from shared.queue.worker import VerifyWorker, build_worker, run_worker

__all__ = [
    "FUNCTION",
    "JobRefusal",
    "JobRefusedError",
    "VerifyJob",
    "VerifyQueue",
    "VerifyWorker",
    "build_worker",
    "run_worker",
]
