"""The application and its broker are used as Celery and kombu read them, or refused."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from dispatchers_celery import CeleryDispatcher, adopt, native, register
from dispatchers_celery._delivery import _on_time_limit
from dispatchers_celery._worker import PRIVATE_PARTS, REDIS_PARTS, refuse_changed
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from dispatchers import (
    Backoff,
    ConfigurationError,
    ErrorCategory,
    Retry,
    RunSettings,
    current_run,
    override,
    run_envelope,
    task,
)
from dispatchers._models.envelope import encode
from dispatchers.testing import Canary, tasks
from dispatchers.testing.conformance._tools import answered

from .harness import CeleryHarness, application, delete_queues

PATIENCE = 30.0
"""Seconds for a first connection on a busy machine: these tests are not about its bound."""
RABBITMQ = "amqp://guest:guest@127.0.0.1:5672//"


@task(name="celery_tests.counted", max_attempts=3, backoff=Backoff(initial=5))
def counted(journal: list[int]) -> None:
    if current_run().attempt < 3:
        raise Retry


@task(name="celery_tests.flaky", max_attempts=2, backoff=Backoff(initial=5))
async def flaky(number: int) -> int:
    if current_run().attempt < 2 or number >= 100:
        raise OSError("as asked")
    return number + 1


OWN = f"own-{uuid4().hex}"
"""A queue of one test alone: all addresses of `memory://` share their queues in a process."""


@task(name="celery_tests.mailed", queue=OWN)
def mailed() -> None: ...


@pytest.fixture
def queue() -> str:
    return f"application-{uuid4().hex}"


@contextlib.contextmanager
def closing(dispatcher: CeleryDispatcher) -> Iterator[CeleryDispatcher]:
    """A dispatcher whose queue is deleted afterwards."""
    yield dispatcher
    dispatcher.close()
    app: Any = dispatcher.broker.app
    delete_queues(app, app.conf.task_default_queue)


def size(dispatcher: CeleryDispatcher, name: str) -> int:
    return dispatcher.publisher.sizes([name], 5)[name][0]


@pytest.mark.parametrize("url", ["localhost", "127.0.0.1", "AMQP://guest:guest@127.0.0.1//"])
def test_an_address_that_kombu_takes_for_rabbitmq_is_one(
    url: str, queue: str, shared_rabbitmq: str
) -> None:
    """C3: a bare host is RabbitMQ: confirmed, its queue declared, and the message is there."""
    if ":5672" not in shared_rabbitmq:
        pytest.skip("RabbitMQ is not on its own port")

    with closing(CeleryDispatcher(app=application(url, queue), deadline=PATIENCE)) as dispatcher:
        response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
        found = size(dispatcher, queue)

    assert (response.status.value, response.confirmed, response.durable) == ("accepted", True, True)
    assert found == 1


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:supersecret@127.0.0.1:26379/0",
        "rediss+nonsense://:supersecret@127.0.0.1/0",
        "nosuch://:supersecret@127.0.0.1",
        "127.0.0.1:5672",
        "redis://:supersecret@127.0.0.1:6379/zero",
        "redis://:supersecret@127.0.0.1:port/0",
        "redis://:12#supersecret@127.0.0.1:6379/0",
        "redis://:12?supersecret@127.0.0.1:6379/0",
        "redis://127.0.0.1:1,supersecret:2/0",
        "amqp://user:12#supersecret@127.0.0.1//",
        "amqp://user:12/supersecret@127.0.0.1//",
        "amqps://user:12?supersecret@127.0.0.1//",
    ],
)
def test_an_address_that_would_be_misread_is_refused(url: str) -> None:
    """An address leads where it says, or is refused at the start without showing any of it."""
    with pytest.raises(ConfigurationError, match="url is") as caught:
        CeleryDispatcher(url=url, alias="mail")

    assert "supersecret" not in "".join(traceback.format_exception(caught.value))
    assert "'mail'" in str(caught.value)


def test_sentinel_without_the_name_of_its_server_is_refused() -> None:
    """Connecting finds out, too late, and it looked as if no server were there."""
    app = Celery("app", broker="sentinel://127.0.0.1:1", set_as_current=False)

    with pytest.raises(ConfigurationError, match="broker_transport_options has no master_name"):
        CeleryDispatcher(app=app)

    app.conf.broker_transport_options = {"master_name": "main"}
    CeleryDispatcher(app=app).close()


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_fail_over_list_is_tried_in_turn(
    broker: str, queue: str, request: pytest.FixtureRequest
) -> None:
    """C2: the client's own list of brokers is used, within the deadline."""
    alive = request.getfixturevalue(f"shared_{broker}")
    scheme = alive.partition("://")[0]
    app = application(f"{scheme}://127.0.0.1:1;{alive}", queue)

    with closing(CeleryDispatcher(app=app, deadline=PATIENCE)) as dispatcher:
        response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
        found = size(dispatcher, queue)

    assert response.ok
    assert found == 1


def test_a_fail_over_list_is_of_one_kind() -> None:
    """Messages of one dispatcher do not go to two kinds of broker."""
    with pytest.raises(ConfigurationError, match="several kinds"):
        CeleryDispatcher(url="amqp://127.0.0.1:1;redis://127.0.0.1:1")


@pytest.mark.filterwarnings("ignore::celery.exceptions.CDeprecationWarning")  # its `queue`
def test_the_applications_own_routing_decides(queue: str) -> None:
    """The application routes where neither request nor dispatcher names a queue."""
    app: Any = application(f"memory://{uuid4().hex}", queue)
    app.conf.task_routes = {"shop.mail_*": {"queue": "mail"}, "dispatchers.*": {"queue": "tests"}}

    @app.task(name="shop.slow", queue="slow", shared=False)
    def slow() -> None: ...

    dispatcher = CeleryDispatcher(app=app)
    with override(default=dispatcher):
        native("shop.mail_digest").dispatch().raise_for_error()
        native("shop.slow").dispatch().raise_for_error()
        native("shop.mail_digest", queue="slow").dispatch().raise_for_error()
        tasks.note.dispatch("/nowhere").raise_for_error()
        tasks.note.options(queue="mail").dispatch("/nowhere").raise_for_error()

    assert {name: size(dispatcher, name) for name in ("mail", "slow", "tests", queue)} == {
        "mail": 2,
        "slow": 2,
        "tests": 1,
        queue: 0,
    }


def test_a_former_call_goes_to_the_tasks_queue(queue: str) -> None:
    """`delay` of a converted task follows the task's own queue, as it did before."""
    app: Any = application(f"memory://{uuid4().hex}", queue)
    dispatcher = CeleryDispatcher(app=app)
    register(app, dispatcher)

    adopt(mailed, app).delay()

    assert {name: size(dispatcher, name) for name in (OWN, queue)} == {OWN: 1, queue: 0}


EXCHANGES = [
    ("topic", "mail.sent", "accepted", 4),
    ("topic", "other", "not_found", 0),
    ("direct", "mail.*", "accepted", 4),
    ("direct", "other", "not_found", 0),
    ("fanout", "any", "unsupported", 0),
]


@pytest.mark.parametrize(("kind", "key", "expected", "count"), EXCHANGES)
def test_what_goes_to_an_exchange_is_in_a_queue_or_refused(
    queue: str, kind: str, key: str, expected: str, count: int, shared_redis: str
) -> None:
    """C3: before any worker has declared it, too; kombu drops what no queue takes."""
    exchange = Exchange(f"x-{queue}", type=kind)
    app: Any = application(shared_redis, queue)
    app.conf.task_queues = [Queue(queue, exchange, routing_key="mail.*")]
    route = {"exchange": exchange.name, "routing_key": key}
    app.conf.task_routes = {"*": route}
    note, url = tasks.note, "/nowhere"
    with (
        closing(CeleryDispatcher(app=app, deadline=PATIENCE)) as dispatcher,
        override(default=dispatcher),
    ):
        batch = note.batch()
        batch.add(url)
        batch.add(url)
        answers = [note.dispatch(url), *batch.dispatch(), native("shop.any").dispatch()]
        found = size(dispatcher, queue)
        put_through = note.options(queue=queue).dispatch(url).status if count else None

    assert [str(each.error.category if each.error else each.status) for each in answers] == [
        expected
    ] * 4
    assert found == count
    assert put_through in ("accepted", None)


@pytest.mark.parametrize("way", ["delay", "apply", "call", "chain"])
def test_a_former_call_that_is_run_here_publishes_nothing(queue: str, way: str) -> None:
    """`.delay()` of an eager application, `apply` and a call make all attempts where they are."""
    eager = way in ("delay", "chain")
    app: Any = application("redis://127.0.0.1:1", queue, task_always_eager=eager)
    register(app, CeleryDispatcher(app=app, idempotency="memory"))
    celerys = adopt(flaky, app)
    ways: dict[str, Callable[[], Any]] = {
        "delay": lambda: celerys.delay(1).get(),
        "apply": lambda: celerys.apply([1]).get(),
        "call": lambda: celerys(1),
        "chain": lambda: (celerys.s(-1) | celerys.s()).delay().get(),
    }

    answers = [ways[way]() for _ in range(2)]

    assert answers == ([1, 1] if way == "chain" else [2, 2])
    with pytest.raises(OSError, match="as asked"):
        celerys.apply([100], throw=True)


@pytest.mark.parametrize("chosen", ["before", "after"])
def test_an_eager_application_runs_our_tasks_in_the_call(queue: str, chosen: str) -> None:
    """`task_always_eager` holds for our tasks as well: attempts at once, nothing is published."""
    app: Any = application("redis://127.0.0.1:1", queue, task_always_eager=chosen == "before")
    dispatcher = CeleryDispatcher(app=app)
    app.conf.task_always_eager = True

    good = counted.options(dispatcher=dispatcher).dispatch([])
    bad = tasks.fail.options(dispatcher=dispatcher, max_attempts=1).dispatch("/nowhere/x", 1)
    batch = counted.options(dispatcher=dispatcher).batch()
    batch.add([])
    batch.add([])

    assert good.status == "executed"
    assert bad.status == "failed"
    assert [each.status for each in batch.dispatch()] == ["executed"] * 2


@pytest.mark.parametrize(
    "name", ["eta", "expires", "headers", "id", "task", "retries", "dispatchers_hold", "CC", "BCC"]
)
def test_a_callers_header_cannot_replace_celerys(queue: str, name: str) -> None:
    """C5: a header of any name travels in the envelope, and leaves Celery's own alone."""
    app: Any = application(f"memory://{uuid4().hex}", queue)
    dispatcher = CeleryDispatcher(app=app)

    work = tasks.note.options(dispatcher=dispatcher, headers={name: "soon", "tenant": "acme"})
    response = work.dispatch("/nowhere")
    with override(default=dispatcher):
        refused = native("shop.mail", headers={name: "soon"}).dispatch()

    with app.connection_for_read() as connection:
        message = app.amqp.queues[queue](connection.channel()).get(no_ack=True)
    assert response.ok
    assert message.headers.get(name) != "soon"
    assert message.headers["tenant"] == "acme"
    assert '"soon"' in message.decode()[0][0]
    assert refused.status == "rejected"


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
@pytest.mark.parametrize("headers", [{"n" * 300: "x"}, {"baggage": "x" * 200_000}, {"x-id": "7"}])
def test_headers_of_any_size_travel(
    broker: str, headers: dict[str, str], queue: str, request: pytest.FixtureRequest
) -> None:
    """C5: what a message's own headers cannot hold is in the envelope, and spoils no batch."""
    url = request.getfixturevalue(f"shared_{broker}")
    with closing(CeleryDispatcher(app=application(url, queue), deadline=PATIENCE)) as dispatcher:
        odd = tasks.note.options(headers=headers).request("/nowhere")
        answers = dispatcher.dispatch_many([tasks.note.request("/nowhere"), odd])
        app: Any = dispatcher.broker.app
        with app.connection_for_read() as connection:
            bound = app.amqp.queues[queue](connection.channel())
            texts = [bound.get(no_ack=True).decode()[0][0] for _ in answers]

    assert all(each.ok for each in answers)
    assert any(next(iter(headers)) in text for text in texts)


def test_an_application_that_takes_no_json_is_refused_at_the_start(queue: str) -> None:
    """Its workers would discard every message: `doctor` says so, with the cure."""
    app = application(f"memory://{uuid4().hex}", queue, accept_content=["pickle"])

    with pytest.raises(ConfigurationError, match="accept_content"):
        CeleryDispatcher(app=app).check()


def test_registering_neither_configures_nor_finalizes(queue: str) -> None:
    """Settings that follow `register(app)` apply, also where tasks exist already."""
    app: Any = Celery("shop", set_as_current=False, autofinalize=False)

    register(app)
    app.conf.task_default_queue = queue
    finalized = app.finalized
    app.finalize()

    assert not finalized
    assert app.conf.task_default_queue == queue
    assert tasks.note.name in app.tasks


def test_a_task_that_is_defined_twice_is_told(queue: str, caplog: pytest.LogCaptureFixture) -> None:
    """C11: a name that is Celery's own task as well would fail there: an error names it."""
    app: Any = Celery("shop", set_as_current=False)

    @app.task(name=tasks.note.name, shared=False)
    def note(journal: str) -> None: ...

    with caplog.at_level(logging.ERROR, "dispatchers"):
        register(app)
        app.finalize()

    assert f"{tasks.note.name!r} is defined twice" in caplog.text


@pytest.mark.parametrize("end", [GeneratorExit, KeyboardInterrupt, SystemExit])
def test_a_run_that_would_end_a_pools_thread_is_repeated(
    end: type[BaseException], shared_rabbitmq: str, tmp_path: Path
) -> None:
    """C9: a pool of Celery's would drop it or keep it; it runs again, and is dead-lettered."""
    harness = CeleryHarness(shared_rabbitmq, tmp_path)
    dispatcher = harness.make_dispatcher(max_deliveries=2)
    deliveries = []

    @task(name="celery_tests.ends_a_pools_thread")
    def ends() -> None:
        deliveries.append(current_run().deliveries)
        raise end

    response = ends.options(dispatcher=dispatcher).dispatch()
    while not harness.dead(dispatcher):
        harness.run_next(dispatcher)
    dispatcher.close()
    harness.close()

    assert response.ok
    assert deliveries == [1, 2]


def test_a_run_knows_its_limit_when_celery_interrupts_it_early() -> None:
    """Celery's clock begins before the run's: a swallowed interruption is no success even so."""
    seen = []

    @task(name="celery_tests.early", time_limit=60)
    def early() -> None:
        with contextlib.suppress(SoftTimeLimitExceeded):
            _on_time_limit(signal.SIGUSR1, None)
        seen.append(current_run().is_late)

    body = encode(early.request())
    outcome = run_envelope(body, settings=RunSettings(interrupts=True))

    assert seen == [True]
    assert outcome.error is not None
    assert outcome.error.exception_type == "dispatchers.TimeLimitError"


@pytest.mark.parametrize("what", ["message", "queue", "neither"])
def test_durable_is_what_queue_and_message_are(queue: str, what: str, shared_rabbitmq: str) -> None:
    """C3: on RabbitMQ `durable` needs a durable queue and a persistent message."""
    mode = "transient" if what == "message" else "persistent"
    app = application(shared_rabbitmq, queue, task_default_delivery_mode=mode)
    exchange = Exchange(queue, delivery_mode=mode)
    app.conf.task_queues = [Queue(queue, exchange, queue, durable=what != "queue")]

    with closing(CeleryDispatcher(app=app, deadline=PATIENCE)) as dispatcher:
        response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")

    assert response.ok
    assert response.durable is (what == "neither")


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_large_batch_keeps_its_deadline(
    broker: str, queue: str, request: pytest.FixtureRequest
) -> None:
    """C2: what a batch cannot hand over in time is rejected, and the answers come in time."""
    url = request.getfixturevalue(f"shared_{broker}")
    with closing(CeleryDispatcher(app=application(url, queue), deadline=PATIENCE)) as dispatcher:
        items = [(tasks.note.request("/nowhere"), b"{}") for _ in range(12_000)]
        dispatcher._send_many(items[:1], timeout=PATIENCE)  # the connection is there
        answers = answered(0.3, lambda: dispatcher._send_many(items, timeout=0.3))
        failed = [each for each in answers if isinstance(each, Exception)]

    assert len(answers) == 12_000
    assert failed
    said = {getattr(each, "category", None) or dispatcher._category(each) for each in failed}
    assert said == {ErrorCategory.TIMEOUT}


class TLSServer:
    """A server with a self-signed certificate; it notes what it is told."""

    def __init__(self, folder: Path) -> None:
        pem = _self_signed(folder)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.told = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._socket.accept()
                with contextlib.suppress(OSError), accepted:
                    self.told += self._context.wrap_socket(accepted, server_side=True).recv(4096)

    def close(self) -> None:
        self._socket.close()


def _self_signed(folder: Path) -> Path:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(1).not_valid_before(now)
    signed = builder.not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    pem = folder / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem.write_bytes(secret + signed.public_bytes(serialization.Encoding.PEM))
    return pem


@pytest.mark.parametrize("scheme", ["rediss", "REDISS", "amqps"])
@pytest.mark.parametrize("how", ["url", "app"])
def test_a_certificate_that_nobody_vouches_for_is_refused(
    scheme: str, how: str, queue: str, tmp_path: Path
) -> None:
    """TLS is verified unless the settings say otherwise: the password is never sent."""
    server = TLSServer(tmp_path)
    url = f"{scheme}://user:secret@localhost:{server.port}/0"
    options: Any = {"url": url} if how == "url" else {"app": application(url, queue)}
    dispatcher = CeleryDispatcher(**options, queue=queue, deadline=PATIENCE)

    response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
    server.close()

    assert response.error is not None
    assert (response.status, response.error.category) == ("rejected", "authentication")
    assert server.told == b""


def test_a_redis_that_is_to_use_tls_gets_no_plain_text(queue: str, tmp_path: Path) -> None:
    """`broker_use_ssl = True` means TLS that is verified; kombu ignores it for Redis."""
    server = TLSServer(tmp_path)
    app = application(f"redis://user:secret@localhost:{server.port}/0", queue)
    app.conf.broker_use_ssl = True

    dispatcher = CeleryDispatcher(app=app, deadline=PATIENCE)
    response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
    server.close()

    assert response.error is not None
    assert (response.status, response.error.category) == ("rejected", "authentication")


@pytest.mark.parametrize("scheme", ["rediss", "REDISS", "redis"])
def test_a_worker_verifies_certificates_too(scheme: str, queue: str, tmp_path: Path) -> None:
    """A worker's connections to Redis verify, unless the application's settings say otherwise."""
    server = TLSServer(tmp_path)
    app = application(f"{scheme}://user:secret@localhost:{server.port}/0", queue)
    app.conf.broker_use_ssl = True if scheme == "redis" else None
    CeleryDispatcher(app=app).broker.verify_certificates()

    for connection in (app.connection_for_read(), app.connection_for_write()):
        with pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
            connection.ensure_connection(max_retries=1, timeout=PATIENCE)
    server.close()

    assert server.told == b""


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("rediss://localhost/0?ssl_cert_reqs=none", None),
        ("rediss://localhost/0", {"ssl_cert_reqs": ssl.CERT_NONE}),
        ("redis://localhost/0", None),
    ],
)
def test_what_an_application_says_of_certificates_stays(
    address: str, said: Any, queue: str
) -> None:
    """Settings that name a choice, and plain addresses, are left as they are."""
    app = application(address, queue)
    app.conf.broker_use_ssl = said

    CeleryDispatcher(app=app).broker.verify_certificates()

    assert app.conf.broker_use_ssl == said


@pytest.mark.parametrize("part", PRIVATE_PARTS + REDIS_PARTS, ids=lambda part: str(part[0]))
def test_a_private_part_is_as_we_know_it(part: tuple[str, ...]) -> None:
    """A new Celery or kombu that changes what we use beyond its promises fails here."""
    assert Canary(*part).problem() is None


def test_a_worker_refuses_what_it_does_not_know() -> None:
    """C9: with another kombu a worker would lose work: it does not begin, and says why."""
    with pytest.raises(ConfigurationError, match="_brpop_begin"):
        refuse_changed((("kombu.transport.redis:Channel._brpop_begin", "self"),))


def test_no_log_record_shows_an_address(caplog: pytest.LogCaptureFixture) -> None:
    """C4: a password of the address is in no record."""
    dispatcher = CeleryDispatcher(url="redis://:supersecret@127.0.0.1:1/0", breaker=False)

    with caplog.at_level(logging.DEBUG, "dispatchers"):
        response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")

    assert not response.ok
    assert "supersecret" not in caplog.text
