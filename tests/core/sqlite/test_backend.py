"""The `sqlite` backend: what it makes of requests, errors and options."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dispatchers import ConfigurationError, DispatchRequest, DispatchStatus, ErrorCategory
from dispatchers import sqlite as stores
from dispatchers._models.envelope import decode
from dispatchers.backends.sqlite import _CATEGORIES, LARGEST, SQLiteDispatcher

from ...timing import within  # noqa: TID252 - as for the other cases


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def dispatcher(path: Path) -> Iterator[SQLiteDispatcher]:
    dispatcher = SQLiteDispatcher(path=path, breaker=False)
    yield dispatcher
    dispatcher.close()


def request(**values: Any) -> DispatchRequest:
    return DispatchRequest(task="shop.mail", **values)


def test_an_accepted_request_is_in_the_file(dispatcher: SQLiteDispatcher, path: Path) -> None:
    """C3, C9: `ACCEPTED` is said when the work is on the disk, with its options."""
    eta = datetime(2100, 1, 1, tzinfo=UTC)
    work = request(
        queue="mail", priority=5, eta=eta, expires=eta + timedelta(1), idempotency_key="k"
    )

    response = dispatcher.dispatch(work)

    assert response.status is DispatchStatus.ACCEPTED
    assert (response.confirmed, response.durable, response.task_id) == (True, True, work.id)
    with closing(sqlite3.connect(path)) as other:
        columns = "id, task, queue, priority, run_at, expires_at, key, body"
        row = other.execute(f"SELECT {columns} FROM jobs").fetchone()
    assert row[:4] == (work.id, "shop.mail", "mail", 5)
    assert row[4:7] == (eta.timestamp(), (eta + timedelta(1)).timestamp(), "k")
    assert decode(row[7]) == work


def test_a_delay_counts_from_the_request(dispatcher: SQLiteDispatcher, path: Path) -> None:
    """A delay is from when the request was made, not from when it was dispatched."""
    work = request(delay=timedelta(hours=1))

    dispatcher.dispatch(work)

    with closing(sqlite3.connect(path)) as other:
        [(run_at,)] = other.execute("SELECT run_at FROM jobs")
    assert run_at == (work.created_at + timedelta(hours=1)).timestamp()


def test_the_queue_is_the_requests_then_the_configured_one(path: Path) -> None:
    """Options beat configuration, and without either there is a default."""
    plain, configured = SQLiteDispatcher(path=path), SQLiteDispatcher(path=path, queue="own")

    plain.dispatch(request())
    configured.dispatch(request())
    configured.dispatch(request(queue="other"))

    assert plain._store.counts().queues == {"default": 1, "own": 1, "other": 1}
    plain.close()
    configured.close()


def test_the_same_request_is_a_duplicate(dispatcher: SQLiteDispatcher) -> None:
    """C10: repeating a request after `UNKNOWN` is safe, and the answer names the work."""
    work = request()

    answers = [dispatcher.dispatch(work) for _ in range(2)]

    assert [answer.status for answer in answers] == ["accepted", "duplicate"]
    assert answers[1].task_id == work.id


def test_a_duplicate_names_the_work_that_has_the_key(dispatcher: SQLiteDispatcher) -> None:
    """C10: another request of the same key gets the task id of the first."""
    first, second = request(idempotency_key="k"), request(idempotency_key="k")

    answers = dispatcher.dispatch_many([first, second])

    assert [answer.status for answer in answers] == ["accepted", "duplicate"]
    assert [answer.task_id for answer in answers] == [first.id, first.id]


@pytest.mark.parametrize("kind", _CATEGORIES)
def test_each_error_has_its_category(dispatcher: SQLiteDispatcher, kind: Any) -> None:
    """C4: the store's errors are told apart, and what is certain is REJECTED."""
    error = kind("no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatcher._store, "put", _raising(error))
        response = dispatcher.dispatch(request())

    assert response.status is DispatchStatus.REJECTED
    assert response.error is not None
    assert response.error.category is _CATEGORIES[kind]


def test_every_error_of_the_store_has_a_category() -> None:
    """C4: no error of the store is left to guessing; only conflicts cannot come from a put."""
    kinds = {
        kind
        for kind in vars(stores).values()
        if isinstance(kind, type) and issubclass(kind, stores.StoreError)
    }

    assert kinds - set(_CATEGORIES) == {stores.StoreError, stores.StoreConflictError}


def test_an_error_in_the_commit_leaves_it_open(dispatcher: SQLiteDispatcher) -> None:
    """C3: what may be written is UNKNOWN."""
    error = stores.StoreUnavailableError("fsync failed", maybe_written=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatcher._store, "put", _raising(error))
        response = dispatcher.dispatch(request())

    assert response.status is DispatchStatus.UNKNOWN


def test_a_locked_file_costs_the_deadline(dispatcher: SQLiteDispatcher, path: Path) -> None:
    """C2: a writer that does not end is answered at the deadline, and retryable."""
    dispatcher.check(contact=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with within(0.2):
            response = dispatcher.dispatch(request(deadline=0.2))
        other.execute("ROLLBACK")

    assert response.status is DispatchStatus.REJECTED
    assert response.error is not None
    assert (response.error.category, response.error.retryable) == (ErrorCategory.TIMEOUT, True)


def test_a_missing_directory_is_found_by_the_check(tmp_path: Path) -> None:
    """C12: what would reject every dispatch is told at the start, with the cure."""
    dispatcher = SQLiteDispatcher(path=tmp_path / "missing" / "queue.db")

    with pytest.raises(ConfigurationError, match="make it"):
        dispatcher.check()


def test_another_programs_file_is_found_by_contact(path: Path) -> None:
    """C12: with contact, the check opens the file and says whose it is."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE books (x)")
        other.commit()
    dispatcher = SQLiteDispatcher(path=path)
    dispatcher.check()

    with pytest.raises(ConfigurationError, match="another program"):
        dispatcher.check(contact=True)


def test_building_a_dispatcher_touches_no_file(dispatcher: SQLiteDispatcher, path: Path) -> None:
    """C12: reading configuration opens nothing; the first dispatch does."""
    dispatcher.check()

    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "'path' is missing"),
        ({"path": ""}, "'path'"),
        ({"path": ":memory:"}, "name a file"),
        ({"path": 3}, "'path'"),
        ({"path": "q\0.db"}, "NUL"),
        ({"path": "q.db", "dead_letters": "sqlite:q\0.db"}, "NUL"),
        ({"path": "q.db", "lease": 0}, "'lease'"),
        ({"path": "q.db", "lease": True}, "'lease'"),
        ({"path": "q.db", "retention": -1}, "'retention'"),
        ({"path": "q.db", "synchronous": "off"}, "'synchronous'"),
        ({"path": "q.db", "pth": "x"}, "unknown option 'pth'"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_at_once(options: dict[str, Any], words: str) -> None:
    """What is wrong with the options raises where the dispatcher is built, and says which."""
    with pytest.raises(ConfigurationError, match=words):
        SQLiteDispatcher(**options)


def test_a_request_that_is_too_large_is_refused(
    dispatcher: SQLiteDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C6: the limit is declared, and kept before the file is touched."""
    small = dispatcher.capabilities.model_copy(update={"max_size": 100})
    declared = dispatcher.capabilities.max_size
    monkeypatch.setattr(dispatcher, "capabilities", small)

    response = dispatcher.dispatch(request(payload={"text": "x" * 200}))

    assert declared == LARGEST
    assert response.error is not None
    assert response.error.category is ErrorCategory.TOO_LARGE


def test_a_closed_dispatcher_says_so(dispatcher: SQLiteDispatcher) -> None:
    """C8: after `close` the answer is `closed`, and nothing was left undone."""
    dispatcher.dispatch(request())

    left = dispatcher.close()
    response = dispatcher.dispatch(request())

    assert left == 0
    assert response.error is not None
    assert response.error.category is ErrorCategory.CLOSED


def _raising(error: Exception) -> Any:
    def put(*args: object, **options: object) -> None:
        raise error

    return put
