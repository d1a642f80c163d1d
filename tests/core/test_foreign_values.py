"""C1: values whose class cannot be asked, and event loops that are not asyncio's."""

from __future__ import annotations

from typing import Any

import pytest

from dispatchers import DispatchStatus, ErrorCategory, task
from dispatchers.backends.null import NullDispatcher


class Unbound:
    """A proxy of a web framework outside of a request: whatever is asked of it raises."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("working outside of request context")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("working outside of request context")


@task(name="foreign.work")
def work(number: int = 0, text: str | None = None) -> None: ...


def driven(coroutine: Any) -> Any:
    """Run a coroutine as a loop does that is not asyncio's: by hand."""
    try:
        coroutine.send(None)
    except StopIteration as exc:
        return exc.value
    raise AssertionError("it waits for something")


def test_a_request_whose_class_raises_is_an_answer():
    """C1: an unbound proxy is the caller's mistake."""
    made = NullDispatcher()

    answers = [
        made.dispatch(Unbound()),
        *made.dispatch_many([Unbound()]),
        *made.dispatch_many(Unbound()),
        driven(made.adispatch(Unbound())),
    ]

    assert {each.status for each in answers} == {DispatchStatus.REJECTED}
    assert [each.error.category for each in answers[:3]] == [ErrorCategory.INVALID] * 3
    assert "not Unbound" in answers[0].error.message


@pytest.mark.parametrize(
    "options",
    [
        {"dispatcher": Unbound()},
        {"queue": Unbound()},
        {"headers": Unbound()},
        {"idempotency_key": Unbound()},
        {"delay": Unbound()},
        {"context": {"a": Unbound()}},
        {"deadline": Unbound()},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_whose_class_raises_is_an_answer(options, inline):
    """C1: in every option, in each way to dispatch."""
    chosen = work.options(**options)
    batch = chosen.batch()
    batch.add()

    answers = [chosen.dispatch(), *batch.dispatch(), driven(chosen.adispatch())]

    assert {each.status for each in answers} == {DispatchStatus.REJECTED}


def test_an_argument_whose_class_raises_is_an_answer(inline):
    """C1: among the arguments, alone and inside others."""
    answers = [work.dispatch(number=Unbound()), work.dispatch(text=[Unbound()])]

    assert {each.error.category for each in answers} == {ErrorCategory.INVALID}


def test_adispatch_without_asyncio_is_an_answer():
    """C1: on the event loop of trio, say, the answer has the cure."""
    made = NullDispatcher()
    request = work.request()

    one = driven(made.adispatch(request))
    many = driven(made.adispatch_many([request, request]))
    by_task = driven(work.options(dispatcher=made).adispatch())

    for each in (one, *many, by_task):
        assert each.status is DispatchStatus.REJECTED
        assert each.error.category is ErrorCategory.UNSUPPORTED
        assert "trio.to_thread.run_sync" in each.error.message
    assert len(many) == 2
    assert one.request_id == request.id
