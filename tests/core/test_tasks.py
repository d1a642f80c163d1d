"""Tasks: declared once, called like functions, dispatched with exactly their parameters."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dispatchers import (
    Backoff,
    Capabilities,
    DeclarationError,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    PayloadError,
    Task,
    catalogue,
    configure,
    hooks,
    override,
    task,
)
from dispatchers.testing.conformance._tools import label

# Calls


def test_calling_a_task_calls_the_function(send_welcome):
    """Here and now, without any dispatcher."""
    assert send_welcome(5, locale="de") is None
    assert send_welcome.calls == [(5, "de")]


def test_a_plain_call_gives_back_what_the_function_gives():
    """Also a coroutine, for an async task."""

    @task(name="shop.double")
    def double(number: int) -> int:
        return 2 * number

    @task(name="shop.adouble")
    async def adouble(number: int) -> int:
        return 2 * number

    assert double(4) == 8
    assert asyncio.run(adouble(4)) == 8


def test_a_task_looks_like_its_function():
    """Name, documentation and signature, for people and tools."""

    @task(name="shop.look")
    def look(number: int, text: str = "x") -> None:
        """Look at it."""

    assert look.__doc__ == "Look at it."
    assert look.__name__ == "look"
    assert str(inspect.signature(look)) == "(number: 'int', text: 'str' = 'x') -> 'None'"
    assert repr(look) == "<task 'shop.look'>"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1, "de"), {}),
        ((1,), {"locale": "de"}),
        ((), {"user_id": 1, "locale": "de"}),
        ((), {"locale": "de", "user_id": 1}),
    ],
)
def test_arguments_go_by_position_or_by_name(send_welcome, inline, args, kwargs):
    """As with the function itself; sync, async, request and batch alike."""
    batch = send_welcome.batch()
    batch.add(*args, **kwargs)

    answers = [
        send_welcome.dispatch(*args, **kwargs),
        asyncio.run(send_welcome.adispatch(*args, **kwargs)),
        *batch.dispatch(),
    ]

    assert [answer.status for answer in answers] == [DispatchStatus.EXECUTED] * 3
    assert send_welcome.calls == [(1, "de")] * 3
    assert send_welcome.request(*args, **kwargs).payload == {"user_id": 1, "locale": "de"}


def test_parameters_may_have_the_names_of_ours(inline):
    """`self`, `request`, `args`: a task's own parameters are nobody else's."""
    seen: list[Any] = []

    @task(name="shop.names")
    def names(request: int, args: int, kwargs: int, head: int, name: int, task: int) -> None:
        seen.append((request, args, kwargs, head, name, task))

    values = {"request": 1, "args": 2, "kwargs": 3, "head": 4, "name": 5, "task": 6}
    names.dispatch(**values).raise_for_error()
    names.options(priority=0).dispatch(**values).raise_for_error()

    assert seen == [(1, 2, 3, 4, 5, 6)] * 2


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "'user_id' is missing"),
        (("1",), {}, "user_id"),
        ((True,), {}, "user_id"),
        ((None,), {}, "user_id"),
        ((1, "de", 3), {}, "3 arguments are given by position"),
        ((1,), {"user_id": 1}, "twice"),
        ((1,), {"lokale": "de"}, "did you mean 'locale'?"),
        ((1,), {"locale": b"de"}, "locale"),
        ((object(),), {}, "user_id"),
    ],
)
def test_arguments_that_do_not_fit_are_an_answer(send_welcome, inline, args, kwargs, words):
    """C1, C4: `invalid`, with the task and the argument's name; `request()` raises the same."""
    batch = send_welcome.batch()
    batch.add(*args, **kwargs)

    answers = [
        send_welcome.dispatch(*args, **kwargs),
        asyncio.run(send_welcome.adispatch(*args, **kwargs)),
        *batch.dispatch(),
    ]

    for answer in answers:
        assert answer.status is DispatchStatus.REJECTED
        assert answer.error.category is ErrorCategory.INVALID
        assert not answer.error.retryable
        assert "task 'shop.send_welcome': " in answer.error.message
        assert words in answer.error.message
        assert answer.error.exception_type == "dispatchers.PayloadError"
    with pytest.raises(PayloadError):
        send_welcome.request(*args, **kwargs)
    assert send_welcome.calls == []


class Row:
    """Like a row of an ORM: an object with attributes, and a repr that shows them."""

    def __init__(self) -> None:
        self.id = 1
        self.password = "s3cret"

    def __repr__(self) -> str:
        return f"<Row {self.password}>"

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("detached from its session")


def cyclic() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "value",
    [Row(), [Row()], {"row": Row()}, cyclic(), float("nan"), "\udc80", {1: 2}, {1, 2}, lambda: 5],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_carry_is_an_answer_without_the_value(inline, value, log):
    """C4, C5: refused before any contact, and neither shown nor looked at."""

    @task(name="shop.anything")
    def anything(value: Any) -> None: ...

    answer = anything.dispatch(value=value)

    assert answer.error.category is ErrorCategory.INVALID
    assert "'value" in answer.error.message
    assert "s3cret" not in f"{answer!r} {log()}"


def test_ten_megabytes_of_text_travel(inline):
    """Size is the backend's to refuse."""
    sizes: list[int] = []

    @task(name="shop.text")
    def text(text: str) -> None:
        sizes.append(len(text))

    assert text.dispatch("ü" * (10 * 2**20)).ok
    assert sizes == [10 * 2**20]


# Requests


def test_a_request_carries_the_task_s_own_options():
    """What the task says of itself travels with each request."""

    @task(
        name="shop.busy",
        queue="mail",
        priority=5,
        expires=timedelta(hours=1),
        time_limit=timedelta(minutes=1),
        max_attempts=5,
        backoff=Backoff(initial=10),
    )
    def busy() -> None: ...

    request = busy.request()

    assert (request.task, request.queue, request.priority) == ("shop.busy", "mail", 5)
    assert (request.expires, request.time_limit) == (timedelta(hours=1), 60.0)
    assert (request.max_attempts, request.backoff) == (5, Backoff(initial=10))
    assert request.fingerprint == busy.codec.fingerprint


def test_options_beat_the_task_s_own():
    """For the next dispatches only; the task itself stays as it is."""

    @task(name="shop.busy", queue="mail", priority=5)
    def busy() -> None: ...

    eta = datetime(2100, 1, 1, tzinfo=UTC)
    request = busy.options(
        queue="low",
        priority=-5,
        eta=eta,
        expires=eta,
        deadline=0.5,
        time_limit=9,
        max_attempts=2,
        backoff=Backoff(factor=3),
        idempotency_key="k",
        deduplicate=True,
        headers={"a": "b"},
        context={"c": [1]},
    ).request()

    assert (request.queue, request.priority, request.eta) == ("low", -5, eta)
    assert (request.expires, request.deadline, request.time_limit) == (eta, 0.5, 9.0)
    assert (request.max_attempts, request.backoff.factor) == (2, 3.0)
    assert (request.idempotency_key, request.deduplicate) == ("k", True)
    assert (request.headers, request.context) == ({"a": "b"}, {"c": [1]})
    assert (busy.request().queue, busy.request().eta) == ("mail", None)


def test_options_can_be_given_in_steps(send_welcome):
    """Later ones beat earlier ones."""
    request = send_welcome.options(queue="a", priority=1).options(queue="b").request(1)

    assert (request.queue, request.priority) == ("b", 1)


def test_options_are_named_in_their_repr(send_welcome):
    """Not their values."""
    shown = repr(send_welcome.options(queue="a", context={"secret": 1}))

    assert shown == "<task 'shop.send_welcome' with context, queue>"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"priority": 101}, "'priority'"),
        ({"priority": True}, "'priority'"),
        ({"priority": "high"}, "'priority'"),
        ({"delay": 5}, "'delay'"),
        ({"delay": timedelta(seconds=-1)}, "'delay'"),
        ({"delay": timedelta.max}, "delay"),
        ({"eta": datetime(2024, 1, 1)}, "timezone-aware"),
        ({"eta": "tomorrow"}, "'eta'"),
        ({"eta": datetime(2024, 1, 1, tzinfo=UTC), "delay": timedelta(1)}, "delay and eta"),
        ({"expires": 5}, "'expires"),
        ({"deadline": 0}, "'deadline'"),
        ({"deadline": True}, "'deadline'"),
        ({"time_limit": float("nan")}, "'time_limit'"),
        ({"max_attempts": 0}, "'max_attempts'"),
        ({"backoff": 5}, "'backoff'"),
        ({"idempotency_key": ""}, "'idempotency_key'"),
        ({"deduplicate": "yes"}, "'deduplicate'"),
        ({"queue": ""}, "'queue'"),
        ({"queue": 5}, "'queue'"),
        ({"headers": {"a": 1}}, "header 'a'"),
        ({"headers": "a"}, "'headers'"),
        ({"context": {"a": object()}}, "'context' at 'a'"),
        ({"context": {"a": float("nan")}}, "'context' at 'a'"),
        ({"dispatcher": 5}, "not int"),
        ({"dispatcher": object()}, "not object"),
        ({"dispatcher": dict}, "not the class dict"),
    ],
    ids=label,
)
def test_options_that_do_not_fit_are_an_answer(send_welcome, inline, options, words):
    """C1: whatever stands in them; `options` itself never raises."""
    dispatching = send_welcome.options(**options)
    batch = dispatching.batch()
    batch.add(1)

    answers = [
        dispatching.dispatch(1),
        asyncio.run(dispatching.adispatch(1)),
        *batch.dispatch(),
        *asyncio.run(batch.adispatch()),
    ]

    for answer in answers:
        assert answer.status is DispatchStatus.REJECTED
        assert answer.error.category is ErrorCategory.INVALID
        assert words in answer.error.message
    assert send_welcome.calls == []


def test_an_unknown_option_is_a_programming_error(send_welcome):
    """Python itself refuses it, as for every function."""
    with pytest.raises(TypeError, match="dealy"):
        send_welcome.options(dealy=timedelta(1))


def test_a_response_knows_its_request(send_welcome, inline):
    """For another try, elsewhere."""
    response = send_welcome.dispatch(1)

    assert response.request.payload == {"user_id": 1}
    assert response.request_id == response.request.id


def test_a_request_can_be_dispatched_again(send_welcome, adapter):
    """C10: it keeps its id, so that duplicates can be recognised."""
    made = adapter()
    request = send_welcome.request(1)

    first, second = made.dispatch(request), made.dispatch(request)

    assert first.request_id == second.request_id
    assert made.asked[0][1] == made.asked[1][1]


# Where work goes


def test_a_task_goes_to_the_dispatcher_of_its_alias(adapter):
    """Options name another one, or are one."""
    default, mine, other, given = adapter(), adapter(), adapter(), adapter(alias="given")

    @task(name="shop.busy", dispatcher="mine")
    def busy() -> None: ...

    with override(default=default, mine=mine, other=other):
        busy.dispatch()
        busy.options(dispatcher="other").dispatch()
        response = busy.options(dispatcher=given).dispatch()

    assert [len(each.asked) for each in (default, mine, other, given)] == [0, 1, 1, 1]
    assert response.dispatcher == "given"


def test_an_alias_that_is_not_configured_falls_back_to_the_default(adapter):
    """A library names its own alias; a host that has none gets its default."""
    from dispatchers._config.api import fallbacks

    default = adapter()

    @task(name="acme_audit.record", dispatcher="acme_audit")
    def record() -> None: ...

    with override(default=default):
        response = record.dispatch()
        fell_back = fallbacks()

    assert response.ok
    assert len(default.asked) == 1
    assert "acme_audit" in fell_back


def test_a_changed_configuration_reaches_the_next_dispatch(adapter, send_welcome):
    """What a task resolved once is resolved anew."""
    first, second = adapter(), adapter()

    with override(default=first):
        send_welcome.dispatch(1)
        with override(default=second):
            send_welcome.dispatch(1)
        send_welcome.dispatch(1)

    assert (len(first.asked), len(second.asked)) == (2, 1)


@pytest.mark.parametrize("way", ["dispatch", "adispatch", "batch"])
def test_a_misconfigured_dispatcher_is_an_answer(send_welcome, monkeypatch, way):
    """C1: `configuration`, and the message has the cure."""
    monkeypatch.setenv("DISPATCHERS_TARGET", "nowhere")
    configure({"targets": {"here": {"default": {"backend": "inline"}}}}, target="here")
    monkeypatch.setenv("DISPATCHERS_TARGETS__HERE__DEFAULT__DEADLIN", "3")
    from dispatchers._config import api as _instances

    _instances.reload()

    answer = {
        "dispatch": lambda: send_welcome.dispatch(1),
        "adispatch": lambda: asyncio.run(send_welcome.adispatch(1)),
        "batch": lambda: batch_of(send_welcome, 1).dispatch()[0],
    }[way]()

    assert answer.status is DispatchStatus.REJECTED
    assert answer.error.category is ErrorCategory.CONFIGURATION
    assert "did you mean 'deadline'?" in answer.error.message
    assert send_welcome.calls == []


def test_all_that_is_wrong_with_a_dispatcher_is_told_at_once(send_welcome, monkeypatch):
    """C4: however long that is; a client's own words are shortened."""
    configure({"targets": {"here": {"default": {"backend": "inline"}}}}, target="here")
    names = [f"UNKNOWN_OPTION_{number}" for number in range(10)]
    for name in names:
        monkeypatch.setenv(f"DISPATCHERS_TARGETS__HERE__DEFAULT__{name}", "3")
    from dispatchers._config import api as _instances

    _instances.reload()

    message = send_welcome.dispatch(1).error.message

    assert [name for name in names if name.lower() not in message] == []


def batch_of(task: Any, *args: Any) -> Any:
    batch = task.batch()
    batch.add(*args)
    return batch


def test_a_missing_library_is_an_answer(send_welcome):
    """C1: with the command that installs it."""
    with override({"targets": {"x": {"default": {"backend": "inline"}}}, "target": "x"}):
        answer = send_welcome.options(dispatcher="default").dispatch(1)
    assert answer.ok

    from dispatchers import MissingDependencyError
    from dispatchers._tasks import calls as _dispatching

    def missing(alias: str | None) -> Any:
        raise MissingDependencyError("run pip install 'dispatchers[celery]'")

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(_dispatching, "resolve", missing)
    answer = send_welcome.options(queue="x").dispatch(1)
    monkeypatch.undo()

    assert answer.error.category is ErrorCategory.MISSING_DEPENDENCY
    assert "pip install 'dispatchers[celery]'" in answer.error.message


def test_a_host_overrides_a_task_by_its_exact_name(adapter):
    """Its word beats the task's own; options beat both."""
    default = adapter(capabilities=Capabilities(priority=True))
    low = adapter(capabilities=Capabilities(priority=True))

    @task(name="acme_audit.record", queue="audit", priority=5, max_attempts=3)
    def record() -> None: ...

    host = {
        "tasks": {
            "acme_audit.record": {
                "dispatcher": "low",
                "queue": "low",
                "priority": -5,
                "time_limit": 9,
                "backoff": {"initial": 7},
                "expires": 60,
            }
        }
    }
    with override(host, default=default, low=low):
        by_host = record.dispatch().request
        by_options = record.options(queue="high", dispatcher="default").dispatch().request

    assert (by_host.queue, by_host.priority, by_host.max_attempts) == ("low", -5, 3)
    assert (by_host.time_limit, by_host.backoff.initial) == (9.0, 7.0)
    assert by_host.expires == timedelta(seconds=60)
    assert (by_options.queue, by_options.priority) == ("high", -5)
    assert [len(each.asked) for each in (default, low)] == [1, 1]


def test_a_task_without_a_queue_leaves_it_to_the_dispatcher(adapter):
    """Options, task, dispatcher: in this order."""
    made = adapter(queue="of-dispatcher")

    @task(name="shop.busy")
    def busy() -> None: ...

    request = busy.options(dispatcher=made).dispatch().request

    assert request.queue is None
    assert made.queue_of(request) == "of-dispatcher"


def test_many_threads_may_dispatch_a_task_for_the_first_time(adapter):
    """C8: what is built on first use is built for all."""
    made = adapter()

    @task(name="shop.typed")
    def typed(at: datetime, wait: timedelta) -> None: ...

    begun = threading.Barrier(8)
    answers: list[Any] = []

    def work() -> None:
        begun.wait(20)
        answers.append(typed.dispatch(datetime.now(UTC), wait=timedelta(1)))

    with override(default=made):
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert [answer.ok for answer in answers] == [True] * 8


# Async tasks


def test_an_async_task_dispatches_from_anywhere(inline):
    """Sync, async, and sync where a loop is running: the call waits for it."""
    seen: list[int] = []

    @task(name="shop.async")
    async def async_task(number: int) -> None:
        await asyncio.sleep(0)
        seen.append(number)

    async def on_a_loop() -> Any:
        return async_task.dispatch(3)

    answers = [
        async_task.dispatch(1),
        asyncio.run(async_task.adispatch(2)),
        asyncio.run(on_a_loop()),
    ]

    assert [answer.status for answer in answers] == [DispatchStatus.EXECUTED] * 3
    assert seen == [1, 2, 3]


# Declaring


def test_a_bare_decorator_names_by_module_and_function(tmp_path, monkeypatch):
    """The name under which a worker finds it again."""
    module = module_of(
        tmp_path, monkeypatch, "from dispatchers import task\n\n@task\ndef work(n: int): ...\n"
    )

    assert isinstance(module.work, Task)
    assert module.work.name == f"{module.__name__}.work"
    assert catalogue.get(module.work.name) is module.work


_modules = 0


def module_of(path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Any:
    """A module with this text, imported."""
    global _modules
    _modules += 1
    name = f"tasks_of_a_test_{_modules}"
    (path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(path)
    importlib.invalidate_caches()
    return importlib.import_module(name)


def test_a_name_has_one_owner():
    """Both are named in the error, with the cure."""

    @task(name="shop.one")
    def one() -> None: ...

    def other() -> None: ...

    with pytest.raises(DeclarationError) as caught:
        task(name="shop.one")(other)

    assert "two tasks are named 'shop.one'" in str(caught.value)
    assert ".one" in str(caught.value)
    assert ".other" in str(caught.value)
    assert catalogue.get("shop.one") is one


@pytest.mark.parametrize(
    ("name", "former"), [("shop.old", ()), ("shop.b", ("shop.a",)), ("shop.b", ("shop.old",))]
)
def test_a_former_name_has_one_owner_too(name, former):
    """Old messages must not find another task."""

    @task(name="shop.a", former_names=("shop.old",))
    def first() -> None: ...

    def other() -> None: ...

    with pytest.raises(DeclarationError, match="two tasks are named"):
        task(name=name, former_names=former)(other)
    assert catalogue.find("shop.b") is None


TWICE = """
from dispatchers import task

@task
def work(number: int) -> None: ...

@task
def work(text: str) -> None: ...
"""


def test_a_function_written_twice_in_one_module_is_refused(tmp_path, monkeypatch):
    """The second would silently take the place of the first."""
    with pytest.raises(DeclarationError) as caught:
        module_of(tmp_path, monkeypatch, TWICE)

    assert "two tasks are named" in str(caught.value)
    assert ".py:4)" in str(caught.value)
    assert ".py:7)" in str(caught.value)


def test_a_module_may_be_loaded_again(tmp_path, monkeypatch):
    """With the same text or another, by `reload` or by a fresh import."""
    module = module_of(
        tmp_path, monkeypatch, "from dispatchers import task\n\n@task\ndef work(n: int): ...\n"
    )
    first = module.work

    importlib.reload(module)
    same = module.work
    edited = f"# longer\n\n\n{Path(module.__file__).read_text()}"
    Path(module.__file__).write_text(edited)
    importlib.invalidate_caches()
    importlib.reload(module)
    moved = module.work
    del sys.modules[module.__name__]
    fresh = importlib.import_module(module.__name__).work

    assert len({id(each) for each in (first, same, moved, fresh)}) == 4
    assert catalogue.get(first.name) is fresh


def test_a_former_name_goes_when_its_task_is_loaded_without_it(tmp_path, monkeypatch):
    """A reload leaves nothing of what was before."""
    text = "from dispatchers import task\n@task(former_names='shop.gone')\ndef work(n: int): ...\n"
    module = module_of(tmp_path, monkeypatch, text)
    assert catalogue.find("shop.gone") is module.work

    Path(module.__file__).write_text(text.replace("former_names='shop.gone'", ""))
    importlib.reload(module)

    assert catalogue.find("shop.gone") is None


class Shop:
    def method(self, number: int) -> None: ...

    @classmethod
    def of_class(cls, number: int) -> None: ...

    def __call__(self, number: int) -> None: ...


def generator(number: int) -> Any:
    yield number


async def async_generator(number: int) -> Any:
    yield number


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (lambda number: None, "a lambda has no name"),
        (generator, "is a generator"),
        (async_generator, "is a generator"),
        (Shop().method, "is a bound method"),
        (Shop.of_class, "is a bound method"),
        (Shop.method, "makes this a method"),
        (Shop, "a task is a function"),
        (5, "a task is a function"),
        ("text", "a task is a function"),
        (functools.partial(print, "x"), "no name"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value))[:20],
)
def test_what_no_worker_could_find_or_run_is_refused(thing, words):
    """At definition, with the cure."""
    with pytest.raises(DeclarationError, match=words):
        task(thing)


def test_a_local_function_needs_a_name():
    """A worker that imports the module would not find it there."""

    def local(number: int) -> None: ...

    with pytest.raises(DeclarationError) as caught:
        task(local)

    assert "is defined inside a function" in str(caught.value)
    assert "@task(name=...)" in str(caught.value)
    assert task(name="shop.local")(local).name == "shop.local"


@pytest.mark.parametrize("name", ["", "two words", 'quo"te', "x" * 256, 5, "tab\there", "\udc80"])
def test_a_name_that_could_not_travel_is_refused(name):
    """It stands in envelopes, logs and command lines."""

    def work() -> None: ...

    with pytest.raises(DeclarationError, match="is not a valid task name"):
        task(name=name)(work)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prority": 5}, "did you mean 'priority'?"),
        ({"priority": 500}, "priority"),
        ({"priority": True}, "priority"),
        ({"queue": ""}, "queue"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": "3"}, "max_attempts"),
        ({"time_limit": -1}, "time_limit"),
        ({"time_limit": True}, "time_limit"),
        ({"expires": 5}, "expires"),
        ({"expires": timedelta(seconds=-1)}, "expires"),
        ({"backoff": {"initial": -1}}, "backoff"),
        ({"backoff": {"inital": 1}}, "did you mean 'initial'?"),
        ({"retry_on": ("ValueError",)}, "takes exception classes"),
        ({"retry_on": (int,)}, "takes exception classes"),
        ({"discard_on": 5}, "discard_on"),
        ({"former_names": 5}, "former_names"),
        ({"former_names": ("two words",)}, "former_names"),
        ({"on_handler_error": "ignore"}, "on_handler_error"),
        ({"dispatcher": 5}, "dispatcher"),
        ({"delay": timedelta(1)}, "unknown option 'delay'"),
    ],
    ids=label,
)
def test_options_of_a_task_are_checked_when_it_is_defined(options, words):
    """At once, with what and the nearest name; nothing is registered."""

    def work() -> None: ...

    with pytest.raises(DeclarationError) as caught:
        task(name="shop.work", **options)(work)

    assert words in str(caught.value)
    assert catalogue.find("shop.work") is None


@pytest.mark.parametrize("given", [ValueError, (ValueError,), [ValueError], {ValueError}])
def test_exception_classes_may_be_given_in_any_shape(given):
    """One, or several of them."""

    @task(name="shop.work", retry_on=given, discard_on=given)
    def work() -> None: ...

    assert work.retry_on == (ValueError,)
    assert work.discard_on == (ValueError,)


def test_a_time_limit_is_seconds_in_the_end():
    """However it was given."""

    @task(name="shop.a", time_limit=90)
    def number() -> None: ...

    @task(name="shop.b", time_limit=timedelta(minutes=1.5))
    def span() -> None: ...

    assert number.time_limit == span.time_limit == 90.0


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda *args: None, "declare one parameter that is a list"),
        (lambda **kwargs: None, "declare one parameter that is a dict"),
        (lambda number, /: None, "remove the `/`"),
        (lambda number: None, "has no annotation"),
    ],
    ids=["args", "kwargs", "positional", "unannotated"],
)
def test_parameters_that_could_not_be_filled_by_name_are_refused(function, words):
    """C5: at definition, with the cure."""
    with pytest.raises(DeclarationError) as caught:
        task(name="shop.work")(function)

    assert words in str(caught.value)


def test_the_catalogue_lists_and_finds_tasks():
    """By name, sorted; former names find the task as well."""

    @task(name="zz.second", former_names=("zz.was",))
    def second() -> None: ...

    @task(name="zz.first")
    def first() -> None: ...

    names = [each.name for each in catalogue.all()]

    assert names == sorted(names)
    assert {"zz.first", "zz.second"} <= set(names)
    assert "zz.was" not in names
    assert catalogue.get("zz.was") is second
    assert catalogue.find("zz.third") is None
    with pytest.raises(LookupError, match=r"did you mean 'zz\.first'"):
        catalogue.get("zz.frist")


def test_a_removed_task_is_gone():
    """With all its names, which are free again."""

    @task(name="zz.gone", former_names=("zz.was",))
    def gone() -> None: ...

    catalogue.remove(gone)

    assert catalogue.find("zz.gone") is None
    assert catalogue.find("zz.was") is None


def test_hooks_may_change_what_a_task_dispatches(send_welcome, adapter):
    """A request of a task is a request like any other."""
    made = adapter()
    hooks.before_dispatch(lambda request: request.replace(payload={"user_id": 7}))

    with override(default=made):
        answer = send_welcome.dispatch(1)

    assert answer.request.payload == {"user_id": 7}
    assert b'"payload":{"user_id":7}' in made.asked[0][1]


def test_a_request_by_name_needs_no_task(inline, send_welcome):
    """Only the name and JSON values, for who has no code of it."""
    from dispatchers import get_dispatcher

    request = DispatchRequest(task="shop.send_welcome", payload={"user_id": 3})

    assert get_dispatcher().dispatch(request).status is DispatchStatus.EXECUTED
    assert send_welcome.calls == [(3, "en")]


def test_another_dispatcher_takes_the_prepared_request_of_the_task():
    """An `Outbox` is chosen anew for each transaction: nothing else of the request changes."""

    @task(name="tests.prepared", queue="mail")
    def prepared() -> None: ...

    chosen = prepared.options(dispatcher="other")
    assert chosen._head() is prepared._head()
    assert chosen.request().queue == "mail"
    assert chosen.options(queue="low").request().queue == "low"
