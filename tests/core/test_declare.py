"""`@declare` and `.implement`: dispatching work whose code is elsewhere."""

from __future__ import annotations

import asyncio
import importlib
from datetime import datetime
from typing import Any

import pytest

from dispatchers import (
    Action,
    DeclarationError,
    DispatchStatus,
    ErrorCategory,
    Reason,
    catalogue,
    declare,
    override,
    run_envelope,
    task,
)
from dispatchers._models.envelope import encode


@pytest.fixture
def declared() -> Any:
    """A task that says what it takes, and no more."""

    @declare(name="shop.send", queue="mail", max_attempts=3)
    def send(user_id: int, locale: str = "en") -> None:
        """Send it."""

    return send


def test_a_declared_task_is_dispatched_like_any_other(declared, adapter):
    """By a process that does not import the code."""
    made = adapter()

    with override(default=made):
        answers = [declared.dispatch(1), asyncio.run(declared.adispatch(user_id=2, locale="de"))]

    assert [answer.ok for answer in answers] == [True, True]
    assert answers[0].request.queue == "mail"
    assert answers[1].request.payload == {"user_id": 2, "locale": "de"}
    assert not declared.implemented


def test_arguments_are_checked_against_the_declaration(declared, adapter):
    """C5: before any contact."""
    with override(default=adapter()):
        answer = declared.dispatch(user_id="no number")

    assert answer.error.category is ErrorCategory.INVALID


def test_a_declared_task_does_not_run_without_its_body(declared):
    """C11: its stub is no body; the work is handed back."""
    outcome = run_envelope(encode(declared.request(1)))

    assert (outcome.action, outcome.reason) == (Action.RETURN, Reason.UNKNOWN_TASK)
    assert "import what implements it" in outcome.error.message


def test_a_declared_task_in_process_is_an_answer(declared, inline):
    """C1: a process that has no code cannot run it inline."""
    answer = declared.dispatch(1)

    assert answer.status is DispatchStatus.REJECTED
    assert answer.error.category is ErrorCategory.NOT_FOUND


def test_the_worker_attaches_the_body(declared, inline):
    """With the declaration's name and options."""
    seen: list[Any] = []

    @declared.implement
    def send(user_id: int, locale: str = "en") -> None:
        seen.append((user_id, locale))

    answers = [declared.dispatch(1), asyncio.run(declared.adispatch(2, "de"))]

    assert send is declared
    assert [answer.status for answer in answers] == [DispatchStatus.EXECUTED] * 2
    assert seen == [(1, "en"), (2, "de")]
    assert declared.implemented
    assert declared.max_attempts == 3
    declared(3)
    assert seen[-1] == (3, "en")


def test_a_body_may_be_async(declared, inline):
    """The declaration does not say which."""
    seen: list[int] = []

    @declared.implement
    async def send(user_id: int, locale: str = "en") -> None:
        await asyncio.sleep(0)
        seen.append(user_id)

    assert declared.dispatch(1).ok
    assert asyncio.run(declared.adispatch(2)).ok
    assert seen == [1, 2]


def other_name(user: int, locale: str = "en") -> None: ...
def other_type(user_id: str, locale: str = "en") -> None: ...
def one_more(user_id: int, locale: str = "en", tone: str = "") -> None: ...
def one_less(user_id: int) -> None: ...
def no_default(user_id: int, locale: str) -> None: ...
def one_default(user_id: int = 0, locale: str = "en") -> None: ...
def wider(user_id: int | None, locale: str = "en") -> None: ...


@pytest.mark.parametrize(
    "body", [other_name, other_type, one_more, one_less, no_default, one_default, wider]
)
def test_a_body_with_other_parameters_is_refused(declared, body):
    """C11: when the worker starts, not when the work arrives."""
    with pytest.raises(DeclarationError) as caught:
        declared.implement(body)

    assert "does not take the parameters that task 'shop.send' declares" in str(caught.value)
    assert not declared.implemented


def same(user_id: int, locale: str = "en") -> None: ...
def same_with_another_default(user_id: int, locale: str = "de") -> None: ...
def same_with_another_result(user_id: int, locale: str = "en") -> int: ...
def same_by_keyword(*, locale: str = "en", user_id: int) -> None: ...


@pytest.mark.parametrize(
    "body", [same, same_with_another_default, same_with_another_result, same_by_keyword]
)
def test_what_does_not_travel_is_the_worker_s_own(declared, body):
    """Defaults, results and the order: arguments go by name."""
    declared.implement(body)

    assert declared.implemented


def test_a_task_has_one_body(declared):
    """The second would silently take the first one's place."""
    declared.implement(same)

    with pytest.raises(DeclarationError, match="would replace it"):
        declared.implement(same_with_another_default)
    declared.implement(same)  # a module that is loaded again


def test_a_defined_task_takes_no_other_body():
    """`@task` has one already."""

    @task(name="shop.defined")
    def defined(user_id: int, locale: str = "en") -> None: ...

    with pytest.raises(DeclarationError, match="would replace it"):
        defined.implement(same)


@pytest.mark.parametrize("thing", [5, "text", None, int])
def test_only_a_function_can_be_a_body(declared, thing):
    """Told like any other wrong definition."""
    with pytest.raises(DeclarationError, match="a task is a function"):
        declared.implement(thing)
    assert not declared.implemented


def generator(user_id: int, locale: str = "en") -> Any:
    yield user_id


def test_a_generator_can_be_no_body(declared):
    """Nobody would iterate over it."""
    with pytest.raises(DeclarationError, match="is a generator"):
        declared.implement(generator)
    assert not declared.implemented


def test_a_declaration_is_found_under_its_former_names():
    """As with `@task`, and its options are checked in the same way."""

    @declare(name="shop.new", former_names=("shop.old",))
    def work() -> None: ...

    assert catalogue.get("shop.old") is work
    with pytest.raises(DeclarationError, match="did you mean 'priority'"):
        declare(name="shop.other", prority=5)


def test_a_name_can_not_be_declared_and_defined_by_two():
    """Declared here and defined there are two owners of one name."""

    @declare(name="shop.work")
    def declared_here() -> None: ...

    def defined_there() -> None: ...

    with pytest.raises(DeclarationError, match="two tasks are named"):
        task(name="shop.work")(defined_there)


def test_declaration_and_body_may_stand_in_different_modules(tmp_path, monkeypatch, inline):
    """That is what it is for."""
    (tmp_path / "shop_api_of_a_test.py").write_text(
        "from datetime import datetime\n"
        "from dispatchers import declare\n"
        "@declare\n"
        "def remind(at: datetime) -> None: ...\n"
    )
    (tmp_path / "shop_worker_of_a_test.py").write_text(
        "from datetime import datetime\n"
        "from shop_api_of_a_test import remind\n"
        "seen = []\n"
        "@remind.implement\n"
        "def _(at: datetime) -> None:\n"
        "    seen.append(at)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    api = importlib.import_module("shop_api_of_a_test")
    at = datetime.fromisoformat("2024-01-01T00:00:00+00:00")

    before = api.remind.dispatch(at)
    worker = importlib.import_module("shop_worker_of_a_test")
    after = api.remind.dispatch(at)

    assert api.remind.name == "shop_api_of_a_test.remind"
    assert before.error.category is ErrorCategory.NOT_FOUND
    assert after.status is DispatchStatus.EXECUTED
    assert worker.seen == [at]
    importlib.reload(worker)
    assert api.remind.dispatch(at).ok
    assert worker.seen == [at]
