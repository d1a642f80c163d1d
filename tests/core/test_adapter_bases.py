"""What `BaseDispatcher` and `PublishingDispatcher` do for an adapter's author."""

from __future__ import annotations

import threading

import pytest

from dispatchers import (
    BackendOptions,
    BaseDispatcher,
    Capabilities,
    ConfigurationError,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    PublishingDispatcher,
    RejectedError,
    Sent,
    WorkerOptions,
    net,
    queue_stats,
    task,
)

GENEROUS = 20.0


class Publisher(PublishingDispatcher[str]):
    """Publishes to a list; the task's name decides what goes wrong."""

    name = "publisher"
    contract = 1
    capabilities = Capabilities(dead_letters=True)
    worker = f"{__name__}:PublisherWorker"

    def __init__(self, **settings):
        super().__init__(**settings)
        self.calls = []

    def _prepare(self, request, body):
        if request.task == "none.queue":
            raise RejectedError(ErrorCategory.NOT_FOUND, "no such queue")
        if request.task == "breaks":
            raise KeyError("secret")
        return request.task

    def _publish(self, messages, timeout):
        self.calls.append((list(messages), timeout))
        if "short" in messages:
            return []
        return [OSError("down") if each == "down" else Sent(each) for each in messages]

    def _category(self, exc):
        return None

    def _maybe_sent(self, exc):
        return True


class PublisherWorker:
    """Remembers what it was made with."""

    def __init__(self, dispatcher, options):
        self.made_with = (dispatcher, options)

    def run(self):
        return 0

    def stop(self):
        pass


def requests(*names):
    return [DispatchRequest(task=name) for name in names]


def test_each_message_of_a_batch_has_its_own_answer_and_good_ones_share_a_round_trip():
    """C3: what cannot be prepared is rejected, and the others go out in one call."""
    publisher = Publisher()

    answers = publisher.dispatch_many(requests("one", "none.queue", "down", "breaks", "two"))

    assert [each.status.value for each in answers] == [
        *("accepted", "rejected", "unknown", "rejected", "accepted"),
    ]
    assert [each.error and each.error.category for each in answers] == [
        *(None, ErrorCategory.NOT_FOUND, ErrorCategory.INTERNAL, ErrorCategory.INTERNAL, None),
    ]
    assert "secret" not in answers[3].error.message
    assert [messages for messages, _ in publisher.calls] == [["one", "down", "two"]]
    assert [each.task_id for each in answers] == ["one", None, None, None, "two"]


def test_one_message_is_prepared_and_published():
    """C2: `_publish` is told the seconds that are left."""
    publisher = Publisher(deadline=0.5)

    response = publisher.dispatch(requests("one")[0])

    assert response.status is DispatchStatus.ACCEPTED
    assert 0 < publisher.calls[0][1] <= 0.5


def test_no_more_messages_are_made_than_the_time_is_long(monkeypatch):
    """C2: a large batch is late by the making of one message, not by that of all."""
    now, made = [100.0], []
    monkeypatch.setattr("dispatchers._dispatch.publishing.monotonic", lambda: now[0])

    class Slow(Publisher):
        def _prepare(self, request, body):
            made.append(request.task)
            now[0] += 0.3
            return request.task

    items = [(each, b"{}") for each in requests("one", "two", "three", "four")]
    with pytest.raises(RejectedError) as raised:
        Slow()._send_many(items, timeout=0.5)

    assert made == ["one", "two"]
    assert raised.value.category is ErrorCategory.TIMEOUT


def test_what_fails_before_publishing_was_certainly_not_handed_over():
    """C3: an exception of `_prepare` is `rejected`, whatever the adapter says of exceptions."""
    response = Publisher().dispatch(requests("breaks")[0])

    assert response.status is DispatchStatus.REJECTED
    assert response.error.exception_type == "KeyError"


@pytest.mark.parametrize("many", [False, True])
def test_too_few_answers_are_unknown(many):
    """C3: an adapter that answers for fewer messages than it was given has sent nobody knows."""
    publisher = Publisher()
    given = requests("short", "one") if many else requests("short")

    answers = publisher.dispatch_many(given) if many else [publisher.dispatch(given[0])]

    assert {each.status for each in answers} == {DispatchStatus.UNKNOWN}


def test_the_worker_is_made_by_its_name():
    """`dispatchers worker` makes the class that `worker` names."""
    publisher, options = Publisher(), WorkerOptions(concurrency=3)

    worker = publisher._worker(options)

    assert worker.made_with == (publisher, options)


def test_a_backend_without_a_worker_says_so():
    """`_worker` raises with words where the class names none."""

    class Without(Publisher):
        worker = None

    with pytest.raises(ConfigurationError, match="has no worker"):
        Without()._worker(WorkerOptions())


def test_dead_letters_are_kept_where_the_option_says():
    """The capability `dead_letters` and the store follow from the option alone."""
    without, configured = Publisher(), Publisher(dead_letters="memory")

    assert without._dead_letters() is None
    assert not without.capabilities.dead_letters
    assert configured.capabilities.dead_letters
    assert configured._dead_letters() is configured.letters


def test_a_class_that_keeps_dead_letters_itself_keeps_its_capability():
    """An instance is narrowed only where the option decides."""

    class Keeping(Publisher):
        def _dead_letters(self):
            raise NotImplementedError

    assert Keeping().capabilities.dead_letters


class Windowed(BaseDispatcher):
    """Its broker delivers an unfinished run again after a minute."""

    name = "windowed"
    contract = 1
    capabilities = Capabilities()
    Options = BackendOptions
    redelivery_window = 60.0
    redelivery_cure = "shorten it, or raise broker_patience"

    def _send(self, request, body, *, timeout):
        return Sent()

    def _category(self, exc):
        return None

    def _maybe_sent(self, exc):
        return True


def test_a_time_limit_beyond_the_redelivery_window_is_refused_at_the_start():
    """C10: a run that outlasts the window would be begun again while it goes on."""
    Windowed().check()

    @task(name="windowed.long", time_limit=90)
    def long() -> None: ...

    with pytest.raises(ConfigurationError, match=r"windowed\.long.*60 s.*raise broker_patience"):
        Windowed(alias="w").check()


class Batches(Publisher):
    """Publishes two at a time."""

    batch_size = 2

    def _publish(self, messages, timeout):
        if "raises" in messages:
            self.calls.append((list(messages), timeout))
            raise ConnectionError("down")
        return super()._publish(messages, timeout)

    def _maybe_sent(self, exc):
        return not isinstance(exc, ConnectionError)


def statuses(dispatcher, *names):
    responses = dispatcher.dispatch_many([DispatchRequest(task=name) for name in names])
    return [response.status.value for response in responses]


def test_a_batch_that_raises_says_nothing_of_another():
    """C3: what `_publish` raises is the answer of its own batch alone."""
    dispatcher = Batches(dead_letters=None)

    said = statuses(dispatcher, "a", "b", "raises", "d", "e")

    assert said == ["accepted", "accepted", "rejected", "rejected", "accepted"]
    assert [names for names, _ in dispatcher.calls] == [["a", "b"], ["raises", "d"], ["e"]]


def test_nothing_is_published_after_a_batch_in_doubt():
    """C3: after a batch whose last message is in doubt, the rest is rejected untried."""
    dispatcher = Batches(dead_letters=None)

    said = statuses(dispatcher, "a", "down", "c", "d")

    assert said == ["accepted", "unknown", "rejected", "rejected"]
    assert [names for names, _ in dispatcher.calls] == [["a", "down"]]


class Lanes(Batches):
    """Publishes three names of one first letter at a time, of twelve letters together."""

    batch_size, batch_bytes = 3, 12

    def _lane_of(self, message):
        return message[0]

    def _size_of(self, message):
        return len(message)


@pytest.mark.parametrize(
    ("names", "calls"),
    [
        (["a1", "b1", "a2"], [["a1", "a2"], ["b1"]]),
        (["a1", "a2", "a3", "a4"], [["a1", "a2", "a3"], ["a4"]]),
        (["a" * 6, "a" * 6, "a"], [["a" * 6, "a" * 6], ["a"]]),
        (["a" * 6, "a" * 7, "a" * 5], [["a" * 6], ["a" * 7, "a" * 5]]),
        (["a" * 13, "a"], [["a" * 13], ["a"]]),
    ],
)
def test_messages_are_packed_by_lane_number_and_bytes(names, calls):
    """A call has messages of one lane, as many as go in; one that is too large goes alone."""
    dispatcher = Lanes()

    answers = dispatcher.dispatch_many(requests(*names))

    assert [each.task_id for each in answers] == names
    assert [messages for messages, _ in dispatcher.calls] == calls


def test_nothing_is_published_after_a_lane_in_doubt():
    """C3: the other lanes are rejected untried, and each message has the answer of its own."""
    dispatcher = Lanes(dead_letters=None)

    said = statuses(dispatcher, "a1", "none.queue", "b1", "down", "a2", "down")

    assert said == ["accepted", "rejected", "accepted", "unknown", "accepted", "unknown"]
    dispatcher.calls.clear()
    assert statuses(dispatcher, "down", "a1", "down") == ["unknown", "rejected", "unknown"]
    assert [messages for messages, _ in dispatcher.calls] == [["down", "down"]]


class Connecting(Publisher):
    """Connects by a client that knows no timeout, to a server that answers or does not."""

    name = "connecting"

    def __init__(self, answers: threading.Event, **settings):
        super().__init__(**settings)
        self.answers = answers

    def connect(self):
        self.answers.wait(GENEROUS)
        return "connection"

    def _publish(self, messages, timeout):
        self._bounded(lambda: self.connect(), timeout=timeout)
        return [Sent(each) for each in messages]

    def _probe(self, *, timeout):
        self.connect()

    def _stats(self, *, timeout):
        self.connect()
        return queue_stats(waiting={"default": 1})


Connecting.capabilities = Connecting.capabilities.model_copy(update={"stats": True})


def raised(kind, call):
    """Return the words of what the call raises."""
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def until_refused(call):
    """Call until so many calls hang that the next is refused untried."""
    said = []
    while not said or "no connection was tried" not in said[-1]:
        # On a busy machine a call may end before it has begun, and does not hang then.
        assert len(said) < 100, said
        said.append(call())


@pytest.fixture
def hanging():
    """A dispatcher whose server does not answer until the test is over."""
    answers = threading.Event()
    yield Connecting(answers, deadline=0.05, breaker=False)
    answers.set()


@pytest.fixture
def healthy():
    """A dispatcher of the same class, with the same alias, whose server answers."""
    answers = threading.Event()
    answers.set()
    return Connecting(answers, deadline=GENEROUS)


def test_connects_that_hang_are_those_of_one_dispatcher(hanging, healthy):
    """C2: hanging connects of one dispatcher, as many as may be, refuse none of another."""
    until_refused(lambda: hanging.dispatch(requests("one")[0]).error.message)

    assert healthy.dispatch(requests("one")[0]).ok


def test_checks_that_hang_are_those_of_one_dispatcher(hanging, healthy):
    """C12: a check with contact is not refused because those of another dispatcher hang."""
    until_refused(lambda: raised(ConfigurationError, lambda: hanging.check(contact=True)))

    healthy.check(contact=True)


def test_counts_that_hang_are_those_of_one_dispatcher(hanging, healthy, caplog):
    """C12: figures are not missing because those of another dispatcher's server hang."""

    def counted():
        caplog.clear()
        assert hanging.stats(timeout=0.05) == []
        return caplog.text

    until_refused(counted)

    assert [each.waiting for each in healthy.stats(timeout=GENEROUS)] == [1]


def test_connects_of_a_method_are_those_of_its_object(hanging, healthy):
    """C2: `bounded` without a server tells clients apart by whose method connects."""

    def connect():
        net.bounded(hanging.connect, timeout=0.05)

    until_refused(lambda: raised(net.ConnectTimeoutError, connect))

    assert net.bounded(healthy.connect, timeout=GENEROUS) == "connection"


class Refusing(Publisher):
    """Refuses by an exception of its client."""

    name = "refusing"

    class Options(BackendOptions):
        """Options with a password."""

        url: str = "acme://user:open-sesame@nowhere"

    def __init__(self, exc, category=None):
        super().__init__()
        self.exc, self.given = exc, category

    def _prepare(self, request, body):
        try:
            raise self.exc
        except Exception as exc:
            raise RejectedError.because(exc, self.given) from exc


@pytest.mark.parametrize(
    ("exc", "category", "expected", "retryable"),
    [
        (TimeoutError("no answer"), None, ErrorCategory.TIMEOUT, True),
        (ConnectionRefusedError(111, "refused"), None, ErrorCategory.UNAVAILABLE, True),
        (PermissionError(13, "denied"), None, ErrorCategory.PERMISSION, False),
        (KeyError("no queue"), ErrorCategory.NOT_FOUND, ErrorCategory.NOT_FOUND, False),
    ],
)
def test_a_refusal_because_of_an_exception_has_its_category_class_and_words(
    exc, category, expected, retryable
):
    """C4: `RejectedError.because` says what the exception says, and that nothing was sent."""
    response = Refusing(exc, category).dispatch(requests("one")[0])

    assert response.status is DispatchStatus.REJECTED
    assert (response.error.category, response.error.retryable) == (expected, retryable)
    assert response.error.exception_type == type(exc).__name__
    assert str(exc) in response.error.message
    assert response.exception.__cause__ is exc


def test_a_refusal_because_of_an_unknown_exception_says_where_and_not_what():
    """C4: words of an exception without a category may quote a payload."""
    response = Refusing(ValueError("the payload")).dispatch(requests("one")[0])

    assert response.error.category is ErrorCategory.INTERNAL
    assert response.error.exception_type == "ValueError"
    assert "the payload" not in response.error.message
    assert "in _prepare" in response.error.message


def test_a_refusal_because_of_an_exception_shows_no_secret():
    """C4: a long text that quotes the password is struck out before it is cut."""
    for size in range(3950, 4010):
        exc = ConnectionError("x" * size + "open-sesame" + "y" * 1000)

        message = Refusing(exc).dispatch(requests("one")[0]).error.message

        assert "open" not in message
        assert len(message) < 4100


def test_a_refusal_because_of_a_refusal_is_that_one():
    """What says already that nothing was handed over, and why, is kept."""
    refused = RejectedError(ErrorCategory.CONFLICT, "another payload")

    assert RejectedError.because(refused) is refused


def test_a_refusal_because_of_an_exception_that_cannot_be_read_is_made():
    """C1: an exception whose own code raises is named by its class."""

    class Odd(OSError):
        @property
        def errno(self):
            raise ZeroDivisionError

    error = RejectedError.because(Odd("boom"))

    assert error.category is ErrorCategory.INTERNAL
    assert error.message.endswith("Odd")
