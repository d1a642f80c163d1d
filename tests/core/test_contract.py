"""The contract, C1 to C4, C6, C8 and C12, on small adapters that do what they are told."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from dispatchers import (
    BackendOptions,
    BaseDispatcher,
    Capabilities,
    ConfigurationError,
    DispatchFailure,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    MissingDependencyError,
    RejectedError,
    Sent,
    hooks,
)
from dispatchers.net import ConnectTimeoutError
from dispatchers.testing.conformance._tools import label

from ..timing import within  # noqa: TID252 - as for the other cases

THREADS = 32  # as many adispatch calls of synchronous clients are under way at once


class BrokenText(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class OddModule(Exception):
    __module__ = 5


class NoText(Exception):
    def __str__(self) -> str:
        return 5  # noqa: PLE0307 - that is the point


class Opaque(OSError):
    """Nothing of it can be looked at."""

    @property
    def errno(self) -> int:
        raise RuntimeError("no number")


def with_errno(number: object) -> OSError:
    error = OSError("odd")
    error.errno = number
    return error


class NotTold(RejectedError):
    """An author who forgot `super().__init__`."""

    def __init__(self) -> None:
        pass


ANYTHING = [
    ValueError("no"),
    RuntimeError(),
    BrokenText(),
    NoText(),
    OddModule(),
    KeyError(object()),
    RecursionError(),
    MemoryError(),
    StopIteration("no more"),
    StopAsyncIteration(),
    ExceptionGroup("two", [ValueError(), OSError()]),
    ConnectionError("\udc80\udcff"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    NotTold(),
    Opaque(),
    with_errno([]),
    with_errno("28"),
    RejectedError("nonsense", 5),
    RejectedError(ErrorCategory.INVALID, None),
    RejectedError(ErrorCategory.INVALID, "\udc80"),
    ImportError("no module"),
    Warning(),
]


def both_ways(dispatcher: BaseDispatcher, request: DispatchRequest) -> list[Any]:
    return [dispatcher.dispatch(request), asyncio.run(dispatcher.adispatch(request))]


@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
def test_dispatch_never_raises_whatever_an_adapter_raises(adapter, request_, error):
    """C1: every `Exception` is an answer, and the answer is valid JSON."""
    made = adapter(error)

    answers = [*both_ways(made, request_), *made.dispatch_many([request_, request_])]

    for answer in answers:
        assert not answer.ok
        assert answer.error.category is not ErrorCategory.TIMEOUT
        assert answer.model_dump_json()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        5,
        "accepted",
        object(),
        (),
        ("id", DispatchStatus.ACCEPTED),
        Sent,
        Sent(status="accepted"),
        Sent(status=None),
        Sent(status=DispatchStatus.REJECTED),
        Sent(status=DispatchStatus.UNKNOWN),
        Sent(status=DispatchStatus.FAILED),
        Sent(error=DispatchFailure(category=ErrorCategory.INTERNAL)),
        Sent(task_id=5),
    ],
    ids=label,
)
def test_an_answer_that_is_none_is_unknown(adapter, request_, answer):
    """C3: the adapter returned, so the work may be handed over, whatever `_maybe_sent` says."""
    made = adapter(lambda *_: answer, maybe=False)

    answers = [*both_ways(made, request_), *made.dispatch_many([request_])]

    assert {each.status for each in answers} == {DispatchStatus.UNKNOWN}
    assert {each.error.category for each in answers} == {ErrorCategory.INTERNAL}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_what_is_no_exception_passes_through(adapter, request_, error):
    """C1: a signal or an exit is not the library's to swallow."""
    made = adapter(error)

    with pytest.raises(type(error)):
        made.dispatch(request_)
    with pytest.raises(type(error)):
        made.dispatch_many([request_])


@pytest.mark.parametrize("broken", ["category", "maybe"])
def test_an_adapter_that_cannot_classify_breaks_nothing(adapter, request_, broken):
    """C1: `_category` and `_maybe_sent` may raise; what nobody can tell is unknown."""

    def raises(exc: Exception) -> Any:
        raise RuntimeError("broken")

    answer = adapter(ConnectionError("refused"), **{broken: raises}).dispatch(request_)

    assert answer.status is DispatchStatus.UNKNOWN
    assert answer.error.category is ErrorCategory.UNAVAILABLE


@pytest.mark.parametrize("category", [None, "timeout", 5, object()])
def test_a_category_that_is_none_is_left_to_the_core(adapter, request_, category):
    """C4: the core knows the standard library's exceptions by itself."""
    answer = adapter(ConnectionRefusedError(), category=lambda _: category).dispatch(request_)

    assert answer.error.category is ErrorCategory.UNAVAILABLE


@pytest.mark.parametrize("thing", [None, 5, "task", {"task": "t"}, object(), DispatchRequest])
def test_what_is_no_request_is_rejected(adapter, thing):
    """C1: wrong types are the caller's fault, and an answer."""
    for answer in both_ways(adapter(), thing):
        assert answer.status is DispatchStatus.REJECTED
        assert answer.error.category is ErrorCategory.INVALID
        assert answer.request is None


def test_an_unvalidated_request_is_an_answer(adapter):
    """C1: pydantic lets anybody build a model without validation."""
    half_made = DispatchRequest.model_construct(task="t", payload=5)

    answer = adapter().dispatch(half_made)

    assert answer.status is DispatchStatus.REJECTED
    assert answer.error.category is ErrorCategory.INTERNAL


def test_a_log_handler_that_raises_breaks_nothing(adapter, request_):
    """C1: what cannot be logged is answered all the same."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("disk full")

    handler = Broken()
    logging.getLogger("dispatchers").addHandler(handler)

    try:
        answer = adapter(ConnectionError()).dispatch(request_)
    finally:
        logging.getLogger("dispatchers").removeHandler(handler)

    assert answer.error.category is ErrorCategory.UNAVAILABLE


def test_an_accepted_dispatch_says_what_is_known(adapter, request_):
    """C3: the backend's id, its confirmation, and who took it."""
    answer = adapter(alias="tracking").dispatch(request_)

    assert answer.status is DispatchStatus.ACCEPTED
    assert answer.task_id == f"{request_.id}-there"
    assert (answer.request_id, answer.request) == (request_.id, request_)
    assert (answer.dispatcher, answer.backend) == ("tracking", "adapter")
    assert (answer.confirmed, answer.durable) == (True, True)
    assert answer.exception is None
    assert answer.elapsed >= 0


def test_an_adapter_may_know_better_than_its_capabilities(adapter, request_):
    """C3: `confirmed` and `durable` say what kind of acceptance this one was."""
    answer = adapter(lambda *_: Sent("1", confirmed=False, durable=False)).dispatch(request_)

    assert (answer.confirmed, answer.durable) == (False, False)


@pytest.mark.parametrize("maybe", [True, False])
def test_maybe_sent_tells_unknown_from_rejected(adapter, request_, maybe):
    """C3: only the adapter knows which of its client's errors come after the sending."""
    answer = adapter(ConnectionResetError("reset"), maybe=maybe).dispatch(request_)

    expected = DispatchStatus.UNKNOWN if maybe else DispatchStatus.REJECTED
    assert answer.status is expected
    assert answer.error.retryable is not maybe
    assert answer.confirmed is False


def test_rejected_error_is_certainly_not_handed_over(adapter, request_):
    """C3: an adapter that knows for sure says so, and `_maybe_sent` is not asked."""
    error = RejectedError(ErrorCategory.NOT_FOUND, "no queue 'mial'")

    answer = adapter(error, maybe=True).dispatch(request_)

    assert answer.status is DispatchStatus.REJECTED
    assert answer.error == DispatchFailure(
        category=ErrorCategory.NOT_FOUND, message="no queue 'mial'"
    )


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (TimeoutError(), ErrorCategory.TIMEOUT),
        (socket.gaierror(-2, "unknown name"), ErrorCategory.UNAVAILABLE),
        (ConnectionRefusedError(), ErrorCategory.UNAVAILABLE),
        (BrokenPipeError(), ErrorCategory.UNAVAILABLE),
        (ssl.SSLCertVerificationError(), ErrorCategory.AUTHENTICATION),
        (PermissionError(), ErrorCategory.PERMISSION),
        (FileNotFoundError(), ErrorCategory.NOT_FOUND),
        (OSError(28, "no space"), ErrorCategory.CAPACITY),
        (MemoryError(), ErrorCategory.CAPACITY),
        (ModuleNotFoundError("celery"), ErrorCategory.MISSING_DEPENDENCY),
        (MissingDependencyError("celery"), ErrorCategory.MISSING_DEPENDENCY),
        (ConfigurationError("url"), ErrorCategory.CONFIGURATION),
        (ZeroDivisionError(), ErrorCategory.INTERNAL),
    ],
    ids=lambda value: getattr(value, "value", type(value).__name__),
)
def test_standard_exceptions_have_their_category(adapter, request_, error, category):
    """C4: callers branch on the category."""
    assert adapter(error).dispatch(request_).error.category is category


def test_the_failure_names_the_exception_s_type(adapter, request_):
    """C4: as one would import it, so that people can look it up."""
    answer = adapter(socket.gaierror(-2, "unknown name")).dispatch(request_)

    assert answer.error.exception_type == "socket.gaierror"
    assert "unknown name" in answer.error.message


class SecretOptions(BackendOptions):
    url: str = "amqp://user:p%40ss-hush@broker/"
    token: SecretStr = SecretStr("t0ken-hush")
    dsn: SecretStr = SecretStr("redis://:dsn-hush@host")
    nested: dict[str, Any] = {"more": [SecretStr("deep-hush")]}


@pytest.mark.parametrize(
    "secret", ["p%40ss-hush", "p@ss-hush", "t0ken-hush", "dsn-hush", "deep-hush"]
)
@pytest.mark.parametrize(
    "make",
    [
        ConnectionError,
        lambda text: RejectedError(ErrorCategory.AUTHENTICATION, text),
    ],
    ids=["client", "adapter"],
)
def test_secrets_never_reach_messages_or_log(adapter, request_, log, secret, make):
    """C4: a client's words are scrubbed of what the configuration calls secret."""
    made = adapter(make(f"login with {secret} failed"), members={"Options": SecretOptions})

    answer = made.dispatch(request_)

    assert "login with *** failed" in answer.error.message
    assert "hush" not in f"{answer!r} {log()}"


def test_what_was_noted_of_an_error_is_told_with_it(adapter, request_, log):
    """PEP 678: a note may be the cure; it is scrubbed as the words are."""
    error = ConnectionError("nobody listens")
    error.add_note("as t0ken-hush says, start it")
    made = adapter(error, members={"Options": SecretOptions})

    answer = made.dispatch(request_)

    assert answer.error.message.endswith("ConnectionError: nobody listens; as *** says, start it")
    assert "hush" not in f"{answer!r} {log()}"


def test_a_payload_never_reaches_messages_or_log(adapter, log):
    """C4: an error nobody classified is told by type and place, not in its own words."""
    request = DispatchRequest(task="t", payload={"password": "s3cret"})

    def send(request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        raise KeyError(request.payload["password"])

    answer = adapter(send).dispatch(request)

    assert "s3cret" not in f"{answer!r} {answer.error} {log()}"
    assert "KeyError at " in answer.error.message


def test_one_record_per_dispatch_that_is_not_ok(adapter, request_, log):
    """C4: at ERROR, because somebody's work may be lost."""
    adapter(ConnectionError("refused"), alias="tracking").dispatch(request_)

    (level, text), *others = log()
    assert (level, others) == (logging.ERROR, [])
    assert "dispatch of shop.send through 'tracking' (adapter) was unknown: unavailable" in text


def test_an_ok_dispatch_logs_nothing(adapter, request_, log):
    """C4: what is well needs no record."""
    adapter().dispatch(request_)
    adapter().dispatch_many([request_])

    assert log() == []


def test_a_record_carries_request_id_and_category(adapter, request_, caplog):
    """C4: structured logs can be searched."""
    adapter(ConnectionError()).dispatch(request_)

    record = caplog.records[0]
    assert record.name == "dispatchers"
    assert (record.request_id, record.category) == (request_.id, "unavailable")


# C2


def blocking(seconds: float = 30.0) -> tuple[Callable[..., Sent], threading.Event]:
    """A client that answers when released, or after `seconds`."""
    released = threading.Event()

    def send(request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        released.wait(seconds)
        return Sent("late")

    return send, released


@pytest.fixture
def hanging() -> Any:
    send, released = blocking()
    yield send
    released.set()


def test_a_guarded_client_that_hangs_costs_the_deadline(adapter, request_, hanging):
    """C2: also on the second and the hundredth call; what was begun is unknown."""
    made = adapter(hanging, guarded=True, deadline=0.05, breaker=False, maybe=False)

    answers = []
    for _ in range(100):
        with within(0.05):
            answers.append(made.dispatch(request_))

    assert answers[0].status is DispatchStatus.UNKNOWN
    assert answers[0].error.category is ErrorCategory.TIMEOUT
    assert answers[-1].status is DispatchStatus.REJECTED
    assert answers[-1].error.category is ErrorCategory.CAPACITY


@pytest.mark.parametrize("guarded", [True, False])
def test_adispatch_costs_the_deadline_whatever_the_client_does(adapter, request_, hanging, guarded):
    """C2: on the event loop no client can be waited for longer, and what was begun is unknown."""
    made = adapter(hanging, guarded=guarded, deadline=0.1, maybe=False)

    async def main() -> Any:
        with within(0.1):
            return await made.adispatch(request_)

    answer = asyncio.run(main())

    assert answer.status is DispatchStatus.UNKNOWN
    assert answer.error.category is ErrorCategory.TIMEOUT


def test_a_request_s_own_deadline_beats_the_dispatcher_s(adapter, hanging):
    """C2: per dispatcher, per request."""
    made = adapter(hanging, guarded=True, deadline=20.0)
    request = DispatchRequest(task="t", deadline=0.05)

    with within(0.05):
        answer = made.dispatch(request)

    assert answer.error.category is ErrorCategory.TIMEOUT


def test_a_client_is_told_what_is_left_of_the_deadline(adapter, request_):
    """C2: so that its own timeouts can keep it."""
    made = adapter(deadline=100.0)

    made.dispatch(request_)

    (_, _, timeout) = made.asked[0]
    assert 50.0 < timeout <= 100.0


def test_a_hook_that_uses_up_the_deadline_leaves_none_for_the_backend(adapter, request_):
    """C2: the deadline is the caller's, and nothing was sent."""
    made = adapter(deadline=0.02)
    hooks.before_dispatch(lambda request: time.sleep(0.03))

    answer = made.dispatch(request_)

    assert answer.status is DispatchStatus.REJECTED
    assert answer.error.category is ErrorCategory.TIMEOUT
    assert answer.error.retryable
    assert made.asked == []


def test_the_deadline_never_cuts_a_run(adapter, request_):
    """C2: work that runs in the call runs to its end, sync and async."""

    def run(request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        time.sleep(0.15)
        return Sent(status=DispatchStatus.EXECUTED)

    made = adapter(run, capabilities=Capabilities(runs_here=True), deadline=0.01)

    answers = [*both_ways(made, request_), *made.dispatch_many([request_, request_])]
    answers += asyncio.run(made.adispatch_many([request_, request_]))

    assert {each.status for each in answers} == {DispatchStatus.EXECUTED}


def test_no_thread_in_time_is_a_certain_rejection(adapter, request_):
    """C3: an async dispatch that never got a thread was not handed over, and never will be."""
    send, released = blocking()
    begun = threading.Semaphore(0)

    def send_and_tell(*args: Any) -> Sent:
        begun.release()
        return send(*args)

    slow = adapter(send_and_tell, deadline=30.0)
    made = adapter(deadline=0.1, breaker=False)

    async def main() -> Any:
        crowd = [asyncio.ensure_future(slow.adispatch(request_)) for _ in range(THREADS)]
        for _ in crowd:
            await asyncio.to_thread(begun.acquire, timeout=20)
        answer = await made.adispatch(request_)
        released.set()
        await asyncio.gather(*crowd)
        return answer

    answer = asyncio.run(main())

    assert answer.status is DispatchStatus.REJECTED
    assert answer.error.category is ErrorCategory.TIMEOUT
    assert made.asked == []


# C4 and the breaker


def test_the_breaker_opens_on_failures_in_a_row(adapter, request_, log):
    """C4: one record on opening; while it is open, the rest at DEBUG, and nothing is sent."""
    made = adapter(ConnectionError(), breaker={"failures": 3, "reset": 60.0})

    answers = [made.dispatch(request_) for _ in range(6)]

    assert [each.error.category.value for each in answers] == [
        *["unavailable"] * 3,
        *["circuit_open"] * 3,
    ]
    assert len(made.asked) == 3
    assert answers[-1].status is DispatchStatus.REJECTED
    assert answers[-1].error.retryable
    assert [level for level, _ in log()] == [
        *[logging.ERROR] * 4,
        *[logging.DEBUG] * 3,
    ]
    assert sum("breaker of 'adapter' (adapter) opened" in text for _, text in log()) == 1


def test_the_breaker_closes_with_one_record_and_the_count(adapter, request_, log):
    """C4: what was refused meanwhile is said once."""
    down = True

    def send(request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        if down:
            raise ConnectionError
        return Sent("1")

    now = 100.0
    made = adapter(send, breaker={"failures": 1, "reset": 5.0})
    made._breaker._clock = lambda: now
    refused = [made.dispatch(request_) for _ in range(4)][1:]
    down, now = False, now + 5.0

    answer = made.dispatch(request_)

    assert {each.error.category for each in refused} == {ErrorCategory.CIRCUIT_OPEN}
    assert answer.ok
    closing = [(level, text) for level, text in log() if "closed" in text]
    assert closing == [(logging.WARNING, "breaker of 'adapter' (adapter) closed; it refused 3")]
    assert made.dispatch(request_).ok


def test_a_probe_that_fails_keeps_the_breaker_open(adapter, request_):
    """One call is let through after a while; nobody else meanwhile."""
    now = 100.0
    made = adapter(ConnectionError(), breaker={"failures": 1, "reset": 5.0})
    made._breaker._clock = lambda: now
    made.dispatch(request_)
    now += 5.0

    categories = [made.dispatch(request_).error.category for _ in range(3)]

    assert categories == [ErrorCategory.UNAVAILABLE, *[ErrorCategory.CIRCUIT_OPEN] * 2]


@pytest.mark.parametrize(
    ("error", "maybe"),
    [
        (ValueError(), False),
        (PermissionError(), False),
        (RejectedError(ErrorCategory.NOT_FOUND, "queue"), False),
        (RejectedError(ErrorCategory.INVALID, "value"), False),
        (RejectedError(ErrorCategory.THROTTLED, "slower"), False),
    ],
)
def test_the_breaker_ignores_what_is_the_caller_s_fault(adapter, request_, error, maybe):
    """A backend that answers is there."""
    made = adapter(error, maybe=maybe, breaker={"failures": 1})

    answers = [made.dispatch(request_) for _ in range(3)]

    assert len(made.asked) == 3
    assert ErrorCategory.CIRCUIT_OPEN not in {each.error.category for each in answers}


@pytest.mark.parametrize(
    ("error", "maybe"),
    [(ConnectionError(), False), (TimeoutError(), False), (ValueError(), True)],
)
def test_the_breaker_counts_unavailable_timeout_and_unknown(adapter, request_, error, maybe):
    """The backend's faults, and what nobody can tell."""
    made = adapter(error, maybe=maybe, breaker={"failures": 1, "reset": 60.0})

    made.dispatch(request_)

    assert made.dispatch(request_).error.category is ErrorCategory.CIRCUIT_OPEN


def test_a_request_that_is_refused_before_contact_does_not_count(adapter):
    """Nor does it use up the probe."""
    made = adapter(ConnectionError(), breaker={"failures": 1, "reset": 60.0})
    late = DispatchRequest(task="t", delay=timedelta(1))

    answers = [made.dispatch(late) for _ in range(3)]

    assert {each.error.category for each in answers} == {ErrorCategory.UNSUPPORTED}


def test_without_a_breaker_every_dispatch_is_tried(adapter, request_):
    """`breaker = false`."""
    made = adapter(ConnectionError(), breaker=False)

    for _ in range(20):
        made.dispatch(request_)

    assert len(made.asked) == 20


# C6


OPTIONS = {
    "delay": {"delay": timedelta(minutes=5)},
    "eta": {"eta": datetime(2100, 1, 1, tzinfo=UTC)},
    "priority": {"priority": 5},
    "expires": {"expires": timedelta(minutes=5)},
    "time_limit": {"time_limit": 5.0},
    "deduplicate": {"deduplicate": True},
}
NOTHING = Capabilities(expires=False, time_limit=False)
EVERYTHING = Capabilities(
    delay=True, priority=True, expires=True, time_limit=True, deduplicate=True
)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_the_backend_cannot_do_is_refused(adapter, option):
    """C6: before anything is sent, with the cure."""
    made = adapter(capabilities=NOTHING)

    answer = made.dispatch(DispatchRequest(task="t", **OPTIONS[option]))

    name = "delay" if option == "eta" else option
    assert answer.status is DispatchStatus.REJECTED
    assert answer.error.category is ErrorCategory.UNSUPPORTED
    assert f"cannot do {name}" in answer.error.message
    assert f"waive = ['{name}']" in answer.error.message
    assert made.asked == []


@pytest.mark.parametrize("option", OPTIONS)
def test_a_waived_option_is_listed_in_the_response(adapter, option):
    """C6: never silently dropped."""
    name = "delay" if option == "eta" else option
    made = adapter(capabilities=NOTHING, waive=[name])

    answers = both_ways(made, DispatchRequest(task="t", **OPTIONS[option]))

    assert [(each.status, each.waived) for each in answers] == [
        (DispatchStatus.ACCEPTED, (name,))
    ] * 2


@pytest.mark.parametrize("option", OPTIONS)
def test_a_supported_option_is_not_waived(adapter, option):
    """C6: `waive` allows leaving out, and does not demand it."""
    made = adapter(capabilities=EVERYTHING, waive=["delay", "priority", "deduplicate"])

    answer = made.dispatch(DispatchRequest(task="t", **OPTIONS[option]))

    assert (answer.ok, answer.waived) == (True, ())


@pytest.mark.parametrize("values", [{"delay": timedelta(0)}, {"priority": 0}, {}])
def test_an_option_that_asks_for_nothing_needs_nothing(adapter, values):
    """No delay and the middle priority are what every backend has."""
    answer = adapter(capabilities=NOTHING).dispatch(DispatchRequest(task="t", **values))

    assert (answer.ok, answer.waived) == (True, ())


def test_an_idempotency_key_is_never_refused(adapter):
    """C10: it is carried where the backend cannot deduplicate."""
    made = adapter(capabilities=NOTHING)

    assert made.dispatch(DispatchRequest(task="t", idempotency_key="k")).ok


def test_several_options_are_refused_at_once(adapter):
    """C6: the message lists all of them."""
    request = DispatchRequest(task="t", priority=1, delay=timedelta(1))

    answer = adapter(capabilities=NOTHING, waive=["priority"]).dispatch(request)
    both = adapter(capabilities=NOTHING).dispatch(request)

    assert "cannot do delay:" in answer.error.message
    assert "cannot do delay, priority:" in both.error.message


@pytest.mark.parametrize("delay", [timedelta(minutes=1), timedelta(hours=2)])
def test_a_waived_delay_has_no_longest(adapter, delay):
    """C6: an instance that delays nothing waives any delay alike, whatever its class could do."""
    narrowed = Capabilities(delay=False, max_delay=timedelta(hours=1))
    made = adapter(capabilities=narrowed, waive=["delay"])

    answer = made.dispatch(DispatchRequest(task="t", delay=delay))

    assert (answer.ok, answer.waived) == (True, ("delay",))


@pytest.mark.parametrize("maybe", [True, False])
def test_a_connect_that_timed_out_was_certainly_not_sent(adapter, maybe):
    """C3: the core knows the errors of `dispatchers.net`, whatever the adapter says of them."""
    made = adapter(ConnectTimeoutError("no connection within 2 s"), maybe=maybe)

    answer = made.dispatch(DispatchRequest(task="t"))

    assert answer.status is DispatchStatus.REJECTED
    assert answer.error.category is ErrorCategory.TIMEOUT
    assert answer.error.retryable


@pytest.mark.parametrize(
    "values", [{"delay": timedelta(hours=2)}, {"eta": datetime(2100, 1, 1, tzinfo=UTC)}]
)
def test_a_delay_longer_than_the_backend_s_is_refused(adapter, values):
    """C6: some brokers lose what waits too long."""
    capabilities = Capabilities(delay=True, max_delay=timedelta(hours=1))
    made = adapter(capabilities=capabilities)

    answer = made.dispatch(DispatchRequest(task="t", **values))
    shorter = made.dispatch(DispatchRequest(task="t", delay=timedelta(hours=1)))

    assert answer.error.category is ErrorCategory.UNSUPPORTED
    assert "1:00:00 at most" in answer.error.message
    assert shorter.ok


def test_an_envelope_that_is_too_large_is_refused(adapter):
    """C6: before anything is sent, with both sizes; the limit itself still goes."""
    from dispatchers._models.envelope import encode

    request = DispatchRequest(task="t", payload={"text": "x" * 2000})
    size = len(encode(request))
    small = adapter(capabilities=Capabilities(max_size=size - 1))
    large = adapter(capabilities=Capabilities(max_size=size))

    answer = small.dispatch(request)

    assert answer.error.category is ErrorCategory.TOO_LARGE
    assert f"{size} bytes" in answer.error.message
    assert str(size - 1) in answer.error.message
    assert small.asked == []
    assert large.dispatch(request).ok


def test_ten_megabytes_travel_where_there_is_no_limit(adapter):
    """C5: the adapter is given the whole envelope."""
    made = adapter()

    answer = made.dispatch(DispatchRequest(task="t", payload={"text": "x" * (10 * 2**20)}))

    assert answer.ok
    assert len(made.asked[0][1]) > 10 * 2**20


def test_an_unknown_queue_is_refused_with_the_nearest(adapter):
    """Queues named in configuration count as declared; another one is refused, not created."""
    made = adapter(queues=["mail", "low"], queue="default")

    answers = {
        queue: made.dispatch(DispatchRequest(task="t", queue=queue))
        for queue in ("mail", "low", "default", None, "mial")
    }

    assert [queue for queue, answer in answers.items() if not answer.ok] == ["mial"]
    assert answers["mial"].error.category is ErrorCategory.NOT_FOUND
    assert "did you mean 'mail'?" in answers["mial"].error.message


def test_without_declared_queues_every_queue_goes_to_the_backend(adapter):
    """The native application may know it."""
    made = adapter()

    assert made.dispatch(DispatchRequest(task="t", queue="anything")).ok
    assert made.queue_of(DispatchRequest(task="t", queue="anything")) == "anything"


# C8


def test_after_close_everything_is_refused(adapter, request_):
    """C4: `closed`, and nothing is sent."""
    made = adapter()

    left = made.close()

    answers = [*both_ways(made, request_), *made.dispatch_many([request_])]
    assert left == 0
    assert {each.status for each in answers} == {DispatchStatus.REJECTED}
    assert {each.error.category for each in answers} == {ErrorCategory.CLOSED}
    assert made.asked == []


def test_closing_the_guard_under_a_dispatch_is_closed_not_capacity(adapter, request_):
    """C4: a dispatch that loses the race against `close` says what happened."""
    made = adapter(guarded=True)
    made._guard.close(0)

    answer = made.dispatch(request_)

    assert answer.status is DispatchStatus.REJECTED
    assert answer.error.category is ErrorCategory.CLOSED


def test_close_says_how_many_were_left(adapter, request_, hanging):
    """C8: a call that hangs is counted, not waited for longer than allowed."""
    made = adapter(hanging, guarded=True, deadline=0.05)
    made.dispatch(request_)

    with within(0.05):
        left = made.close(0.05)

    assert left == 1


def test_one_dispatcher_serves_many_threads(adapter):
    """C8: no answer is another's."""
    made = adapter(guarded=True)
    answers: dict[str, Any] = {}

    def work(number: int) -> None:
        for each in range(20):
            request = DispatchRequest(task="t", id=f"{number}-{each}")
            answers[request.id] = made.dispatch(request)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 160
    assert all(answer.task_id == f"{key}-there" for key, answer in answers.items())


def test_one_dispatcher_serves_two_event_loops(adapter, request_):
    """C8: one after the other, and at once in two threads."""
    made = adapter(guarded=True)
    barrier = threading.Barrier(2)
    answers: list[Any] = []

    def loop() -> None:
        barrier.wait(10)
        answers.append(asyncio.run(made.adispatch(request_)))

    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.append(asyncio.run(made.adispatch(request_)))

    assert [answer.ok for answer in answers] == [True] * 3


def test_adispatch_does_not_block_the_event_loop(adapter, request_):
    """C8: the loop goes on while a synchronous client waits."""
    ticked = threading.Event()

    def send(request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        return Sent("1" if ticked.wait(10) else None)

    async def main() -> Any:
        waiting = asyncio.ensure_future(adapter(send, deadline=10.0).adispatch(request_))
        await asyncio.sleep(0.01)
        ticked.set()
        return await waiting

    assert asyncio.run(main()).task_id == "1"


@pytest.mark.parametrize("guarded", [True, False])
def test_adispatch_runs_in_the_caller_s_context(adapter, request_, guarded):
    """Context variables, a trace among them, are seen by the adapter."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    def send(request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        return Sent(variable.get())

    variable.set("mine")
    answers = both_ways(adapter(send, guarded=guarded), request_)

    assert [answer.task_id for answer in answers] == ["mine", "mine"]


def test_cancelling_adispatch_does_not_unsend(adapter, request_):
    """C8: what became of it still reaches the hooks."""
    begun, released = threading.Event(), threading.Event()
    told: list[Any] = []

    def send(request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        begun.set()
        released.wait(10)
        return Sent("1")

    hooks.after_dispatch(told.append)

    async def main() -> None:
        waiting = asyncio.ensure_future(adapter(send, deadline=10.0).adispatch(request_))
        await asyncio.to_thread(begun.wait, 10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert told == []
        released.set()
        while not told:  # noqa: ASYNC110 - a hook tells no event loop
            await asyncio.sleep(0.005)

    asyncio.run(main())

    assert [answer.status for answer in told] == [DispatchStatus.ACCEPTED]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
@pytest.mark.parametrize("guarded", [True, False])
def test_a_signal_handler_may_dispatch_in_the_middle_of_a_dispatch(adapter, guarded, on_signal):
    """C8: locks are safe in signal handlers."""
    made = adapter(guarded=guarded, breaker={"failures": 1, "reset": 0.001})
    inner: list[Any] = []
    outer: list[Any] = []

    def handler(number: int, frame: Any) -> None:
        inner.append(made.dispatch(DispatchRequest(task="inner")))

    with on_signal(signal.SIGALRM, handler, every=0.0005):
        until = time.monotonic() + 20
        while len(inner) < 50 and time.monotonic() < until:
            outer.append(made.dispatch(DispatchRequest(task="outer")))

    assert len(inner) >= 50
    assert all(answer.ok for answer in (*inner, *outer))


def in_child(work: Callable[[], bool]) -> bool:
    """Whether `work` is true in a forked child."""
    pid = os.fork()
    if pid == 0:
        done = False
        try:
            done = work()
        finally:
            os._exit(0 if done else 1)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("guarded", [True, False])
def test_parent_and_child_dispatch_after_a_fork(adapter, request_, guarded):
    """C8: with helpers and loops of their own."""
    made = adapter(guarded=guarded)
    assert all(both_ways(made, request_))

    child = in_child(lambda: all(both_ways(made, request_)))

    assert child
    assert all(both_ways(made, request_))


# C12


def test_is_available_never_raises():
    """C12: it reads what is installed, and connects to nothing."""

    class Missing(BaseDispatcher):
        library = "no_such_library"

    class Odd(BaseDispatcher):
        library = "..odd..name"

    class Needless(BaseDispatcher):
        pass

    assert [each.is_available() for each in (Missing, Odd, Needless)] == [False, False, True]


def test_check_reaches_the_backend_only_on_request(adapter):
    """C12: the start-up check raises on what would reject every dispatch."""
    probes: list[float] = []

    def _probe(self: Any, *, timeout: float) -> None:
        probes.append(timeout)
        raise ConnectionRefusedError("no broker")

    made = adapter(members={"_probe": _probe})

    made.check()
    assert probes == []
    with pytest.raises(ConfigurationError, match=r"'adapter'.*could not be reached.*no broker"):
        made.check(contact=True)


def test_check_is_bounded_whatever_the_probe_does(adapter):
    """C12: a start-up check that hangs is worse than none."""
    released = threading.Event()
    made = adapter(members={"_probe": lambda self, *, timeout: released.wait(30)}, deadline=0.1)

    with within(0.1), pytest.raises(ConfigurationError):
        made.check(contact=True)

    released.set()


def test_check_scrubs_secrets(adapter):
    """C4: the start-up check's words go to logs as well."""

    def _probe(self: Any, *, timeout: float) -> None:
        raise ConnectionError("password t0ken-hush refused")

    made = adapter(members={"_probe": _probe, "Options": SecretOptions})

    with pytest.raises(ConfigurationError) as caught:
        made.check(contact=True)

    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"deadlin": 1.0}, "did you mean 'deadline'?"),
        ({"deadline": True}, "deadline"),
        ({"deadline": 0}, "deadline"),
        ({"deadline": float("nan")}, "deadline"),
        ({"waive": ["dealy"]}, "did you mean 'delay'?"),
        ({"breaker": {"failure": 1}}, "did you mean 'failures'?"),
        ({"queue": ""}, "queue"),
        ({"max_deliveries": 0}, "max_deliveries"),
        ({"on_handler_error": "ignore"}, "on_handler_error"),
    ],
    ids=label,
)
def test_a_constructor_refuses_wrong_options_early(adapter, options, words):
    """C1: constructors raise; the message names the option and the nearest."""
    with pytest.raises(ConfigurationError) as caught:
        adapter(**options)

    assert words in str(caught.value)


def test_an_abstract_adapter_cannot_be_made():
    """What an author must write is said by Python itself."""

    class Half(BaseDispatcher):
        name = "half"
        contract = 1
        capabilities = Capabilities()

    with pytest.raises(TypeError, match="_send"):
        Half()
