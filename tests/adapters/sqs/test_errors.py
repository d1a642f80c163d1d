"""What the client raises, as category and status."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions as boto
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dispatchers_sqs import SQSDispatcher
from dispatchers_sqs._errors import CODES, category_of, is_certainly_unsent
from dispatchers_sqs._message import Message

from dispatchers import ConfigurationError, DispatchResponse, DispatchStatus, ErrorCategory, Sent
from dispatchers.testing import tasks
from dispatchers.testing.conformance._tools import answered

from .service import REGION, Service

REJECTED = DispatchStatus.REJECTED


def answer(code: str, status: int = 400) -> boto.ClientError:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(response, "SendMessageBatch")  # type: ignore[arg-type]


@pytest.mark.parametrize("code", CODES)
def test_a_code_of_the_service_has_its_category_and_is_no_doubt(code: str) -> None:
    found = answer(f"AWS.SimpleQueueService.{code}")

    assert category_of(found) is CODES[code]
    assert is_certainly_unsent(found)


@pytest.mark.parametrize(
    ("status", "category", "unsent"),
    [
        (400, ErrorCategory.INVALID, True),
        (403, ErrorCategory.PERMISSION, True),
        (404, ErrorCategory.NOT_FOUND, True),
        (429, ErrorCategory.THROTTLED, True),
        (500, ErrorCategory.UNAVAILABLE, False),
        (503, ErrorCategory.UNAVAILABLE, False),
    ],
)
def test_an_unknown_code_is_known_by_its_status(
    status: int, category: ErrorCategory, unsent: bool
) -> None:
    """C3: an error of the server's own leaves it unknown what it has done."""
    found = answer("Unheard", status)

    assert (category_of(found), is_certainly_unsent(found)) == (category, unsent)


@pytest.mark.parametrize(
    ("exc", "category", "unsent"),
    [
        (boto.NoCredentialsError(), ErrorCategory.AUTHENTICATION, True),
        (boto.NoRegionError(), ErrorCategory.CONFIGURATION, True),
        (boto.ProfileNotFound(profile="x"), ErrorCategory.CONFIGURATION, True),
        (boto.ParamValidationError(report="x"), ErrorCategory.INVALID, True),
        (boto.EndpointConnectionError(endpoint_url="x"), ErrorCategory.UNAVAILABLE, True),
        (boto.ConnectTimeoutError(endpoint_url="x"), ErrorCategory.TIMEOUT, True),
        (boto.ReadTimeoutError(endpoint_url="x"), ErrorCategory.TIMEOUT, False),
        (boto.ConnectionClosedError(endpoint_url="x"), ErrorCategory.UNAVAILABLE, False),
        (boto.HTTPClientError(error="x"), ErrorCategory.UNAVAILABLE, False),
        (
            boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
            ErrorCategory.UNAVAILABLE,
            False,
        ),
        (KeyError("x"), None, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_the_client(
    exc: Exception, category: ErrorCategory | None, unsent: bool
) -> None:
    assert (category_of(exc), is_certainly_unsent(exc)) == (category, unsent)


def test_every_error_of_the_client_is_mapped() -> None:
    """A class that a new release adds has the category of its base."""
    kinds = [kind for kind in vars(boto).values() if isinstance(kind, type)]
    ours = [kind for kind in kinds if issubclass(kind, boto.BotoCoreError)]

    assert all(category_of(kind.__new__(kind)) for kind in ours)


def dispatched(dispatcher: SQSDispatcher) -> DispatchResponse:
    response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
    dispatcher.close()
    return response


def test_missing_credentials_are_told(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """C4: before anything is sent, with the cure."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    response = dispatched(SQSDispatcher(queue="any", region=REGION, endpoint=service.url))

    assert response.status is REJECTED
    assert response.error is not None
    assert response.error.category is ErrorCategory.AUTHENTICATION
    assert "AWS_ACCESS_KEY_ID" in response.error.message


def test_a_missing_region_is_told(service: Service) -> None:
    """C12: by the start-up check, and by each dispatch."""
    dispatcher = SQSDispatcher(queue="any", endpoint=service.url)

    with pytest.raises(ConfigurationError, match="no region"):
        dispatcher.check()
    response = dispatched(dispatcher)

    assert response.status is REJECTED
    assert response.error is not None
    assert response.error.category is ErrorCategory.CONFIGURATION
    assert "AWS_DEFAULT_REGION" in response.error.message


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_metadata_service_that_says_nothing_is_not_waited_for(
    silent: int, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C2: credentials are looked for within the deadline."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{silent}")
    monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "3")
    dispatcher = SQSDispatcher(queue="any", region=REGION, endpoint=service.url, deadline=0.5)

    response = answered(0.5, lambda: dispatched(dispatcher))

    assert response.status is REJECTED
    assert response.error is not None
    assert response.error.category is ErrorCategory.TIMEOUT


def test_a_missing_queue_is_told(service: Service) -> None:
    """C6: it is not made; by the cure."""
    response = dispatched(SQSDispatcher(queue="nowhere", region=REGION, endpoint=service.url))

    assert response.status is REJECTED
    assert response.error is not None
    assert response.error.category is ErrorCategory.NOT_FOUND
    assert "create-queue" in response.error.message


def test_one_missing_queue_fails_its_own_messages_alone(service: Service) -> None:
    """C3: each item of a batch has an answer of its own."""
    service.client.create_queue(QueueName="there")
    dispatcher = SQSDispatcher(queue="there", region=REGION, endpoint=service.url)
    note = tasks.note.options(dispatcher=dispatcher)
    lost = note.options(queue="nowhere")

    requests = [kind.request("/nowhere") for kind in (note, lost, note)]
    found = dispatcher.dispatch_many(requests)
    dispatcher.close()

    assert [each.status for each in found] == ["accepted", "rejected", "accepted"]


def test_a_message_that_the_service_refuses_fails_alone(service: Service) -> None:
    """C3: each has the answer of its own, in whatever order the service tells them."""
    service.client.create_queue(QueueName="some")
    dispatcher = SQSDispatcher(queue="some", region=REGION, endpoint=service.url)
    entries: list[dict[str, Any]] = [{"DelaySeconds": 901}, {}]
    messages = [Message("some", {"MessageBody": "{}", **entry}, 2) for entry in entries]

    bad, good = dispatcher.broker.send(messages, 5.0)
    dispatcher.close()

    assert isinstance(good, Sent)
    assert isinstance(bad, boto.ClientError)
    assert (category_of(bad), is_certainly_unsent(bad)) == (ErrorCategory.INVALID, True)


@pytest.fixture
def untrusted(tmp_path: Path) -> Iterator[int]:
    """A port that speaks TLS, with a certificate that nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(1))
    (tmp_path / "pem").write_bytes(
        builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=handshake, args=(listener, context))
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def handshake(listener: socket.socket, context: ssl.SSLContext) -> None:
    connection, _ = listener.accept()
    with suppress(OSError), context.wrap_socket(connection, server_side=True) as wrapped:
        wrapped.recv(1)


def test_a_certificate_that_is_not_trusted_is_told(untrusted: int) -> None:
    """C3: nothing was sent; other errors of TLS may come after."""
    dispatcher = SQSDispatcher(
        queue="http://localhost/1/q", region=REGION, endpoint=f"https://localhost:{untrusted}"
    )

    response = dispatched(dispatcher)

    assert response.status is REJECTED
    assert response.error is not None
    assert response.error.category is ErrorCategory.AUTHENTICATION
    assert not is_certainly_unsent(boto.SSLError(endpoint_url="x", error="cut off"))
