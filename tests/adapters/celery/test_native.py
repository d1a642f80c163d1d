"""Celery's own tasks, dispatched to by name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from dispatchers_celery import CeleryDispatcher, adopt, native

from dispatchers import override

from .harness import application


@pytest.fixture
def app() -> Any:
    found: Any = application(f"memory://{uuid4().hex}", "native")

    @found.task(name="shop.add", shared=False)
    def add(x: int, y: int) -> int:
        if y < 0:
            raise ValueError("negative")
        return x + y

    return found


def test_its_message_is_the_one_that_delay_writes(app: Any) -> None:
    """The arguments are Celery's own, and nothing of ours is in the message."""
    with override(default=CeleryDispatcher(app=app)):
        response = native(app.tasks["shop.add"]).dispatch(1, y=2).raise_for_error()

    with app.connection_for_read() as connection:
        message = app.amqp.queues["native"](connection.channel()).get(no_ack=True)
    assert message.decode()[:2] == [[1], {"y": 2}]
    assert message.headers["task"] == "shop.add"
    assert message.headers["id"] == response.task_id
    assert not [name for name in message.headers if name.startswith("dispatchers")]


def test_values_that_json_would_change_are_refused(app: Any) -> None:
    """C1, C5: Celery's serializer would hand over another value: an answer, and nothing is sent."""
    with override(default=CeleryDispatcher(app=app)):
        response = native("shop.add").dispatch(datetime.now(UTC), 2)

    assert response.status == "rejected"
    assert response.error is not None
    assert response.error.category == "invalid"


def test_an_eager_application_runs_it_in_the_call(app: Any) -> None:
    """`task_always_eager`: executed; a failing task is an answer, never an exception."""
    app.conf.task_always_eager = True
    with override(default=CeleryDispatcher(app=app)):
        good = native("shop.add").dispatch(1, 2)
        bad = native("shop.add").dispatch(1, -2)
        unknown = native("shop.subtract").dispatch(1, 2)

    assert good.status == "executed"
    assert bad.status == "failed"
    assert isinstance(bad.exception, ValueError)
    assert unknown.status == "rejected"


def test_adopting_needs_the_registration(app: Any) -> None:
    """A task that is not in the application cannot be Celery's."""
    from dispatchers.testing import tasks

    with pytest.raises(LookupError, match="register"):
        adopt(tasks.note, app)
