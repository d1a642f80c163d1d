"""What `BaseDispatcher` and `PublishingDispatcher` do for an adapter's author."""

from __future__ import annotations

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
    task,
)


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
