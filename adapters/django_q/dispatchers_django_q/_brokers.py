"""django-q2's brokers: Redis, and a table of the database."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Protocol

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router

from dispatchers import ConfigurationError, ErrorCategory, RejectedError
from dispatchers.net import ForkGate
from dispatchers.redis import bounded_client, durability, within

from ._options import DjangoQOptions
from ._package import RUNNER, Package

OTHERS = ("broker_class", "iron_mq", "sqs", "mongo")
"""Settings by which django-q2 takes a broker that this backend does not know."""
SHARE = 0.8
"""The part of a deadline that a broker has to answer, before the guard gives the call up: what it
says is more than that nothing is known."""
REDIS_LOSES = (
    "django-q2 takes work out of Redis before it is run: what a cluster had taken is lost when it "
    "is killed. Q_CLUSTER['orm'] keeps it"
)

gate = ForkGate(2.0)
"""A child that is forked in the midst of a write would take SQLite's file for locked for ever."""


Counts = dict[str, Mapping[str, Any]]


class Broker(Protocol):
    """A place that clusters take packages from."""

    durable: bool
    delays: bool
    batch_size: int
    """Packages that are put in one step, all or none of them."""

    def put(self, packages: Sequence[Package], *, timeout: float) -> None:
        """Hand packages over within `timeout` seconds."""
        ...

    def warnings(self, *, timeout: float) -> list[str]:
        """Reach the broker; return what an operator should know."""
        ...

    def counts(self, *, timeout: float) -> Counts:
        """Count packages by cluster, under the words of `queue_stats`."""
        ...

    def close(self) -> None:
        """Close the connections that are its own."""
        ...


def broker_of(options: DjangoQOptions) -> Broker:
    """Return the broker that `Q_CLUSTER` chooses.

    Raises:
        ConfigurationError: It chooses none that this backend knows.
    """
    conf = cluster_settings()
    if found := [name for name in OTHERS if conf.get(name)]:
        raise ConfigurationError(
            f"settings.Q_CLUSTER has {found[0]!r}: backend 'django_q' knows the brokers 'redis' "
            "and 'orm'"
        )
    return OrmBroker(options, str(conf["orm"])) if conf.get("orm") else RedisBroker(options)


def cluster_settings() -> dict[str, Any]:
    """Return `Q_CLUSTER`.

    Raises:
        ConfigurationError: There are no settings, or they have none.
    """
    try:
        found: dict[str, Any] | None = getattr(settings, "Q_CLUSTER", None)
    except ImproperlyConfigured as exc:
        raise ConfigurationError(
            "backend 'django_q' needs Django's settings: set DJANGO_SETTINGS_MODULE, or run "
            "`manage.py dispatchers`"
        ) from exc
    if not found:
        raise ConfigurationError(
            "settings.Q_CLUSTER is missing: backend 'django_q' takes its broker from there"
        )
    return found


def clusters() -> tuple[str, ...]:
    """Return the names of the clusters, that of `Q_CLUSTER` itself first: they are the queues."""
    conf = cluster_settings()
    own = conf.get("cluster_name", conf.get("name", "default"))
    return (own, *(name for name in conf.get("ALT_CLUSTERS", {}) if name != own))


class OrmBroker:
    """A table of the database; a row that is due later has its lock until then.

    Written outside of the caller's transaction, on a connection of the thread's own: the guard's.
    """

    durable = delays = True
    batch_size = 100

    def __init__(self, options: DjangoQOptions, database: str) -> None:
        self.options = options
        self.database = database

    def put(self, packages: Sequence[Package], *, timeout: float) -> None:
        """Write the rows, all or none of them."""
        from django.utils import timezone
        from django_q.models import OrmQ

        now = timezone.now()
        rows = [
            OrmQ(key=each.cluster, payload=each.signed(self.options), lock=local(each.due) or now)
            for each in packages
        ]
        with _connected(self.database, timeout) as connection:
            # One without the transaction of many, which SQLite locks in two steps.
            if len(rows) == 1 and not connection.in_atomic_block:
                _insert(rows[0], connection)
            else:
                OrmQ.objects.using(self.database).bulk_create(rows)

    def close(self) -> None:
        """Leave the connections to Django, which has one for each thread."""

    def note(self, row: int, package: Package) -> None:
        """Keep a package with other counts, while a worker has it."""
        from django_q.models import OrmQ

        found = OrmQ.objects.using(self.database).filter(pk=row)
        found.update(payload=package.signed(self.options))

    def counts(self, *, timeout: float) -> Counts:
        """Count the rows that are due; one that is locked is delayed or runs, which nothing tells.

        A row's lock is when it became due.
        """
        from django.db.models import Count, Min
        from django.utils import timezone
        from django_q.models import OrmQ

        now = timezone.now()
        with _connected(self.database, timeout):
            queued = OrmQ.objects.using(self.database).filter(key__in=self.options.queues)
            due = queued.filter(lock__lte=now).order_by()
            rows = list(due.values_list("key").annotate(Count("pk"), Min("lock")))
        return {
            "waiting": {key: count for key, count, _ in rows},
            "oldest": {key: (now - since).total_seconds() for key, _, since in rows},
        }

    def warnings(self, *, timeout: float) -> list[str]:
        """Read the table; compare how long a run may be with when its row is given to another."""
        from django_q.models import OrmQ

        with _connected(self.database, timeout):
            OrmQ.objects.using(self.database).exists()
        conf = cluster_settings()
        limit, retry = conf.get("timeout"), conf.get("retry", 60)
        return [
            *([] if limit and limit <= retry else [_too_long(limit, retry)]),
            *([_given_up(conf["max_attempts"])] if conf.get("max_attempts") else []),
        ]


class RedisBroker:
    """Redis: a list for each cluster, and rows of schedules for what is due later."""

    durable = False
    batch_size = 1

    def __init__(self, options: DjangoQOptions) -> None:
        self.options = options
        self.delays = bool(cluster_settings().get("scheduler", True))
        self.client = bounded_client(_client())

    def put(self, packages: Sequence[Package], *, timeout: float) -> None:
        """Push what is due to the list of its cluster; write down what is due later."""
        for each in packages:
            if each.due is None:
                self._push(each, timeout)
            else:
                self._schedule(each, timeout)

    def close(self) -> None:
        """Close the connections to the server."""
        self.client.connection_pool.disconnect()

    def _push(self, package: Package, timeout: float) -> None:
        with within(timeout * SHARE):
            self.client.rpush(f"django_q:{package.cluster}:q", package.signed(self.options))

    def _schedule(self, package: Package, timeout: float) -> None:
        from django_q.models import Schedule

        with _connected(router.db_for_write(Schedule), timeout):
            self._row(Schedule, package).save(force_insert=True)

    def _row(self, schedule: Any, package: Package) -> Any:
        options = {"task_name": package.name, **package.options(self.options)}
        return schedule(
            name=package.name,
            func=RUNNER,
            args=repr(package.args),
            kwargs=repr({"q_options": options}),
            schedule_type=schedule.ONCE,
            cluster=package.cluster,
            next_run=local(package.due),
        )

    def counts(self, *, timeout: float) -> Counts:
        """Count what is in the clusters' lists; what a cluster has taken is nowhere."""
        from django.db.models import Count
        from django_q.models import Schedule

        names = self.options.queues
        with within(timeout * SHARE), self.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.llen(f"django_q:{name}:q")
            waiting = dict(zip(names, pipe.execute(), strict=True))
        with _connected(router.db_for_read(Schedule), timeout):
            rows = Schedule.objects.filter(func=RUNNER, cluster__in=names).order_by()
            delayed = dict(rows.values_list("cluster").annotate(Count("pk")))
        return {"waiting": waiting, "delayed": delayed}

    def warnings(self, *, timeout: float) -> list[str]:
        """Ask the server how it keeps what it has."""
        with within(timeout):
            return [REDIS_LOSES, *durability(self.client).warnings]


def local(due: datetime | None) -> datetime | None:
    """Return an aware time as the database keeps it."""
    if due is None or settings.USE_TZ:
        return due
    return due.astimezone().replace(tzinfo=None)


def later(seconds: float) -> datetime | None:
    """Return the time in so many seconds; None for at once."""
    return datetime.fromtimestamp(datetime.now(UTC).timestamp() + seconds, UTC) if seconds else None


def _client() -> Any:
    from django_q.brokers.redis_broker import Redis as Theirs

    try:
        return Theirs.get_connection()
    except Exception as exc:
        raise ConfigurationError(
            f"settings.Q_CLUSTER: django-q2 makes no connection to Redis: {type(exc).__name__}"
        ) from exc


def _insert(row: Any, connection: Any) -> None:
    """Write a row; Django's ORM takes longer to compose the statement than SQLite to execute it."""
    quoted = connection.ops.quote_name
    fields = [each for each in row._meta.local_concrete_fields if not each.primary_key]
    columns = ", ".join(quoted(each.column) for each in fields)
    marks = ", ".join(["%s"] * len(fields))
    values = [each.get_db_prep_save(getattr(row, each.attname), connection) for each in fields]
    with connection.cursor() as cursor:
        # The names are those of django-q2's model.
        table = quoted(row._meta.db_table)
        cursor.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)  # noqa: S608


@contextmanager
def _connected(database: str, timeout: float) -> Generator[Any]:
    """Use this thread's connection, during which no fork happens.

    Raises:
        RejectedError: There is none: certainly nothing was written.
    """
    connection: Any = connections[database]
    until = monotonic() + timeout * SHARE
    with gate.entered():
        try:
            connection.ensure_connection()
            if connection.vendor == "sqlite":
                patience = max(0, int((until - monotonic()) * 1000))
                connection.connection.execute(f"PRAGMA busy_timeout = {patience}")
        except Exception as exc:
            message = f"no connection to database {database!r}: {type(exc).__name__}"
            raise RejectedError(ErrorCategory.UNAVAILABLE, message) from exc
        try:
            yield connection
        finally:
            _leave(connection)


def _leave(connection: Any) -> None:
    """Close a connection as Django does after a request; SQLite's in any case."""
    if connection.in_atomic_block:
        return  # of a worker's run
    if connection.vendor == "sqlite":
        connection.close()  # a child of a fork that has one open may lose what it writes
    else:
        connection.close_if_unusable_or_obsolete()


def _too_long(limit: object, retry: object) -> str:
    said = "no timeout" if not limit else f"timeout = {limit}"
    return (
        f"settings.Q_CLUSTER has {said} and retry = {retry}: a run that takes longer than that is "
        "begun once more while it goes on. Let timeout be less than retry"
    )


def _given_up(attempts: object) -> str:
    return (
        f"settings.Q_CLUSTER has max_attempts = {attempts}: work whose worker could not settle it "
        "so often is dropped; what django-q2 keeps of it are its rows of failed tasks"
    )
