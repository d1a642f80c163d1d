"""The names of things in Redis: RQ's own, and the few beside them."""

from __future__ import annotations

from hashlib import sha256

from dispatchers import DispatchRequest

__all__ = [
    "OURS",
    "RUNNER",
    "id_of",
    "job_key",
    "key_of",
    "leases_key",
    "queue_key",
    "registry_key",
]

RUNNER = "dispatchers_rq.run"
"""The function path of each of our jobs."""
OURS = "dispatchers"
"""What a worker of ours says of itself, beside what RQ's say."""


def queue_key(queue: str) -> str:
    """The list of the ids of a queue's jobs."""
    return f"rq:queue:{queue}"


def job_key(job_id: str) -> str:
    """The hash of a job."""
    return f"rq:job:{job_id}"


def registry_key(kind: str, queue: str) -> str:
    """A sorted set of job ids: `scheduled`, `failed`, `finished` or `wip`."""
    return f"rq:{kind}:{queue}"


def leases_key(queue: str) -> str:
    """The hash of what is with a worker: job id to token and number of renewals."""
    return f"rq:dispatchers:leases:{queue}"


def id_of(request: DispatchRequest) -> str:
    """The job's id, of the letters that RQ takes."""
    return request.id if request.id.isascii() else sha256(request.id.encode()).hexdigest()


def key_of(request: DispatchRequest) -> str:
    """Where the job under an idempotency key is named; empty where the id is the key."""
    if request.idempotency_key is None:
        return ""
    text = f"{request.task}\0{request.idempotency_key}"
    return f"rq:dispatchers:key:{sha256(text.encode()).hexdigest()}"
