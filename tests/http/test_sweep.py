"""D18: a scheduler wakes executions, trusted as those who push work are."""

from __future__ import annotations

import io
import json
import time

import pytest

from dispatchers import DispatchRequest, override
from dispatchers._journal.loading import journal
from dispatchers._journal.values import Start, Status
from dispatchers._models.envelope import encode
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.http import Endpoint, EndpointSettings, wsgi_app
from dispatchers.workflows import workflow

SECRET = "0123456789abcdef0123456789abcdef"
SWEEP = "/dispatchers/sweep"


@workflow(name="http_sweep.flow")
async def flow() -> None: ...


@pytest.fixture
def queue():
    """The dispatcher by which an execution is woken that no queue knows."""
    queue = MemoryDispatcher()
    with override(default=queue):
        start = Start(f"http_sweep.flow/{time.time_ns()}", "http_sweep.flow", 1, "default", None,
                      b"{}", b"{}", 0.0)  # fmt: skip
        found = journal().begin(start, timeout=1.0)
        assert found.first
        # Its wake-up counts as under way; another process's journal would count it as lost.
        execution = journal()._executions[start.execution]  # type: ignore[attr-defined]
        execution.waked_at = None
        yield queue
        journal()._executions.clear()  # type: ignore[attr-defined]


def endpoint(**settings: object) -> Endpoint:
    return Endpoint(EndpointSettings(worker=True, secrets=SECRET, **settings))  # type: ignore[arg-type]


def bearer(secret: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {secret}")]


def test_a_scheduler_wakes_executions(queue):
    """D18: without a worker of its own, a push deployment is swept."""
    answer = endpoint().handle("POST", SWEEP, bearer(SECRET), b"")

    assert (answer.status, json.loads(answer.body)) == (200, {"woken": 1})
    assert [each.task for each in queue.waiting] == ["http_sweep.flow/turn"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", SWEEP, [], 401),
        ("POST", SWEEP, bearer("0123456789abcdef0123456789abcdee"), 401),
        ("GET", SWEEP, bearer(SECRET), 405),
        ("POST", "/dispatchers/sweep/", bearer(SECRET), 404),
    ],
)
def test_a_stranger_wakes_nothing(queue, method, path, headers, status):
    """The same verifiers hold as for work."""
    assert endpoint().handle(method, path, headers, b"").status == status
    assert queue.waiting == ()


def test_a_process_that_is_no_worker_is_not_swept(queue):
    """404, as for work."""
    settings = EndpointSettings(worker=False, secrets=SECRET)  # type: ignore[arg-type]
    assert Endpoint(settings).handle("POST", SWEEP, bearer(SECRET), b"").status == 404


def test_without_a_journal_the_answer_is_503(queue, caplog):
    """Why is in the log, not in the answer."""
    with override({"workflows": "nowhere:at_all"}):
        answer = endpoint().handle("POST", SWEEP, bearer(SECRET), b"")

    assert answer.status == 503
    assert "workflows" in caplog.text


def test_pushes_that_reached_no_worker_leave_nothing_stuck(queue):
    """D16: the queue counts them too, and they say nothing about the code."""
    request = DispatchRequest(task="http_sweep.flow", payload={}, idempotency_key="late")
    headers = [*bearer(SECRET), ("Content-Type", "application/json")]

    answer = endpoint().handle(
        "POST",
        "/dispatchers/run",
        [*headers, ("X-CloudTasks-TaskRetryCount", "7")],
        encode(request),
    )

    record = journal().look("http_sweep.flow/late", timeout=1.0)
    assert answer.status == 204
    assert record is not None
    assert record.status is Status.COMPLETED


def test_the_path_stands_beside_the_endpoints(queue):
    """A path of one's own moves both; a mount is found, too."""
    app = wsgi_app(endpoint(path="/hooks/work"))
    said = []
    environ = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/api",
        "PATH_INFO": "/hooks/sweep",
        "HTTP_AUTHORIZATION": f"Bearer {SECRET}",
        "wsgi.input": io.BytesIO(),
    }
    app(environ, lambda status, headers: said.append(status))

    assert said == ["200 OK"]
