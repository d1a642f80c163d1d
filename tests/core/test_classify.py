"""`classify`, and the kinds of failure that are told apart in what is recorded."""

from __future__ import annotations

import socket
import ssl

import pytest

from dispatchers import DispatchRequest, RunSettings, classify, run_envelope, task
from dispatchers._models.envelope import encode
from dispatchers._models.failures import failure_kind, permanence


class GatewayError(OSError): ...


class DeclinedError(GatewayError): ...


class TimedOutError(DeclinedError, TimeoutError): ...


def test_unknown_exceptions_are_transient():
    """Most failures pass."""
    assert permanence(GatewayError()) == "transient"
    assert permanence(Exception()) == "transient"


@pytest.mark.parametrize(
    "kind", [TypeError, NotImplementedError, ModuleNotFoundError, IndentationError]
)
def test_programming_errors_are_permanent_by_default(kind):
    """The same code fails in the same way again."""
    assert permanence(kind()) == "permanent"


def test_the_nearest_class_wins():
    """Whatever the order in which they were classified."""
    classify(DeclinedError, "permanent")
    classify(OSError, "transient")
    classify(GatewayError, "transient")

    assert permanence(OSError()) == "transient"
    assert permanence(GatewayError()) == "transient"
    assert permanence(DeclinedError()) == "permanent"
    assert permanence(TimedOutError()) == "permanent"
    assert permanence(ConnectionError()) == "transient"


def test_nearness_follows_the_order_of_bases():
    """As Python looks attributes up."""
    classify(TimeoutError, "permanent")
    classify(GatewayError, "transient")

    assert permanence(TimedOutError()) == "transient"


def test_a_class_can_be_classified_again():
    """The last word counts, also on the default ones."""
    classify(TypeError, "transient")

    assert permanence(TypeError()) == "transient"


@pytest.mark.parametrize("thing", [5, "ValueError", ValueError(), int, KeyboardInterrupt, None])
def test_only_exception_classes_can_be_classified(thing):
    """Python's own ways to end a thread or a process never become outcomes."""
    with pytest.raises(TypeError, match="takes an exception class"):
        classify(thing, "permanent")


class StoppedRunError(BaseException): ...


def test_what_interrupts_runs_can_be_a_failure_of_theirs():
    """A worker whose time limits are no `Exception` says so: then a waiting caller has it too."""

    @task(name="classify.interrupted", max_attempts=2)
    def interrupted() -> None:
        raise StoppedRunError

    body, settings = encode(interrupted.request()), RunSettings(quiet=True)

    with pytest.raises(StoppedRunError):
        run_envelope(body, settings=settings)
    classify(StoppedRunError, "transient")
    outcome = run_envelope(body, settings=settings)

    assert (outcome.action, outcome.reason) == ("retry", "failed")


@pytest.mark.parametrize("word", ["Permanent", "retry", None, True])
def test_there_are_two_words(word):
    """Anything else is refused at once."""
    with pytest.raises(TypeError, match='neither "permanent" nor "transient"'):
        classify(ValueError, word)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def in_circles() -> Exception:
    first, second = ValueError(), RuntimeError()
    first.__cause__, second.__cause__ = second, first
    return first


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError(), "exception"),
        (TimeoutError(), "timeout"),
        (ConnectionRefusedError(), "connection"),
        (BrokenPipeError(), "connection"),
        (socket.gaierror(-2, "unknown"), "dns"),
        (ssl.SSLError(), "tls"),
        (ssl.SSLCertVerificationError(), "certificate"),
        (caused(RuntimeError(), TimeoutError()), "timeout"),
        (caused(RuntimeError(), caused(ValueError(), socket.gaierror())), "dns"),
        (in_circles(), "exception"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_kinds_of_failure_are_told_apart(error, kind):
    """By type, looked for in the causes too, for clients wrap what they catch."""
    assert failure_kind(error) == kind


def test_the_kind_stands_in_the_outcome():
    """For people, and for what reads dead letters."""

    @task(name="shop.fail")
    def fail() -> None:
        try:
            raise ssl.SSLCertVerificationError("expired")
        except ssl.SSLError as exc:
            raise RuntimeError("gateway") from exc

    outcome = run_envelope(encode(DispatchRequest(task="shop.fail")))

    assert outcome.error.kind == "certificate"
    assert outcome.error.exception_type == "RuntimeError"
