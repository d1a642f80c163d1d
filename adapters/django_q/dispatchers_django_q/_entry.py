"""The function that each package names: runs an envelope in a worker of `qcluster`."""

from __future__ import annotations

from typing import Any

from django_q.exceptions import TimeoutException
from django_q.signals import pre_execute

from dispatchers import (
    ConfigurationError,
    DeadLetter,
    Outcome,
    get_dispatcher,
    run_settings,
)
from dispatchers.delivery import Delivery, import_modules, process

from ._brokers import OrmBroker, later
from ._dispatcher import DjangoQDispatcher
from ._package import Package

SETTLING = 30.0
"""Seconds that a worker gives the broker to take the next attempt."""


class RunFailedError(Exception):
    """The work failed permanently, or its worker could not settle it."""


_current: dict[str, Any] = {}
"""The package that this worker runs; a worker of django-q2's runs one at a time."""


def _begin(*, task: dict[str, Any], **_: object) -> None:
    global _current
    _current = task


pre_execute.connect(_begin, dispatch_uid="dispatchers_django_q")


class PackageDelivery(Delivery):
    """A package in a worker's hands: what follows is put first, then django-q2 settles this one."""

    def __init__(self, dispatcher: DjangoQDispatcher, package: Package, row: int | None) -> None:
        self.dispatcher, self.package, self.row = dispatcher, package, row
        self.body, self.id, self.task = package.body.encode(), package.id, package.name
        self.queue, self.attempt = package.cluster, package.attempt
        self.deliveries = package.deliveries
        self.lost = ""
        """Why django-q2 shall keep it as failed; empty where it succeeds."""

    def begin(self) -> None:
        """Count this delivery before the run, as it may kill its worker (C10)."""
        if self.row is not None and isinstance(self.dispatcher.broker, OrmBroker):
            counted = self.package._replace(deliveries=self.deliveries + 1)
            self.dispatcher.broker.note(self.row, counted)

    def complete(self, outcome: Outcome) -> None:
        """Leave it to django-q2, for which it has succeeded."""

    def retry(self, outcome: Outcome) -> None:
        """Put the next attempt."""
        self._put(self.attempt + 1, 1, outcome.after)

    def give_back(self, after: float) -> None:
        """Put the same attempt."""
        self._put(self.attempt, self.deliveries, after)

    def dead_letter(self, outcome: Outcome, letter: DeadLetter) -> None:
        """Have django-q2 keep the envelope as a failed task, where no store has it."""
        if self.dispatcher.letters is None:
            self.lost = outcome.reason.value
            _current["ack_failure"] = True  # else its row would be run again

    def abandon(self) -> None:
        """Leave the row to be given to another worker; what Redis has no more is put again."""
        self.lost = "not settled"
        if self.row is None:
            self._put(self.attempt, self.deliveries + 1, 0)

    def _put(self, attempt: int, deliveries: int, after: float) -> None:
        again = self.package._replace(attempt=attempt, deliveries=deliveries, due=later(after))
        self.dispatcher.broker.put([again], timeout=SETTLING)


def run(*args: Any) -> None:
    """Run an envelope in a worker of django-q2's.

    Args:
        args: What the package has: envelope, attempt, deliveries, alias and timeout.

    Raises:
        RunFailedError: It failed permanently and no store of dead letters is configured, or could
            not be settled: django-q2 keeps it as failed.
    """
    import_modules()
    package = Package.taken(args, _current)
    delivery = PackageDelivery(_dispatcher(package.alias), package, _current.get("ack_id"))
    delivery.begin()
    _process(delivery)
    if delivery.lost:
        raise RunFailedError(delivery.lost)


def _process(delivery: PackageDelivery) -> None:
    dispatcher = delivery.dispatcher
    try:
        process(delivery, run_settings(dispatcher.options), letters=dispatcher.letters)
    except TimeoutException:
        raise
    except SystemExit as exc:
        # django-q2 would end with it, and with what its other packages are waiting for.
        raise RunFailedError("the task has ended its process") from exc


def _dispatcher(alias: str) -> DjangoQDispatcher:
    found = get_dispatcher(alias)
    if isinstance(found, DjangoQDispatcher):
        return found
    raise ConfigurationError(f"dispatcher {alias!r} is not one of 'django_q' in this worker")
