"""The worker's route under uvicorn: what a queue gets to see, and what the document says of it."""

import asyncio
import http.client
import json
import socket
import threading
from typing import Any

import httpx
import pytest
from dispatchers_fastapi import lifespan, worker_router
from fastapi import FastAPI

from dispatchers import ConfigurationError, configure, task
from dispatchers.http import PATH, EndpointSettings

SECRET = "a-secret-that-is-long"
TRUSTED = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
WORKER = EndpointSettings(worker=True, secrets=SECRET)


@task(name="fastapi.double")
def double(number: int) -> None:
    """Fails for what is negative."""
    DOUBLED.append(2 * number)
    if number < 0:
        raise ValueError("s3cret of a handler")


DOUBLED: list[int] = []


@pytest.fixture(autouse=True)
def _nothing_doubled() -> None:
    DOUBLED.clear()


def application(settings: EndpointSettings | None = WORKER, **options: Any) -> FastAPI:
    app = FastAPI()
    app.include_router(worker_router(settings, **options))
    return app


def envelope(number: int) -> str:
    return double.request(number).model_dump_json(exclude={"deadline", "deduplicate"})


def test_a_delivery_is_run(serve):
    """And answered with nothing but that."""
    answer = serve(application()).post(PATH, content=envelope(4), headers=TRUSTED)

    assert (answer.status_code, answer.content) == (204, b"")
    assert DOUBLED == [8]


@pytest.mark.parametrize(
    ("headers", "status", "body"), [(TRUSTED, 200, b'{"woken":0}'), ({}, 401, None)]
)
def test_a_scheduler_sweeps_beside_it(serve, headers, status, body):
    """D18: executions of workflows are woken by those who are trusted to push work."""
    configure({"workflows": "memory"})
    answer = serve(application()).post("/dispatchers/sweep", headers=headers)
    configure()

    assert answer.status_code == status
    assert body in (None, answer.content)


@pytest.mark.parametrize(
    ("headers", "status", "body"), [(TRUSTED, 200, b'{"relayed":0}'), ({}, 401, None)]
)
def test_a_scheduler_relays_beside_it(serve, headers, status, body):
    """What is held is handed over for those who are trusted to push work."""
    answer = serve(application()).post("/dispatchers/relay", headers=headers)

    assert answer.status_code == status
    assert body in (None, answer.content)


def test_a_failure_says_nothing_of_itself(serve):
    """The queue learns what to do; the rest is in the worker's own log."""
    answer = serve(application()).post(PATH, content=envelope(-1), headers=TRUSTED)

    assert "s3cret" not in answer.text + str(answer.headers)
    assert json.loads(answer.text) == {"outcome": answer.headers["Dispatchers-Outcome"]}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "FOO"])
def test_what_is_no_post_is_the_endpoint_s_to_answer(serve, method):
    """FastAPI's own 405 would tell a worker from a process that is none."""
    worker = serve(application()).request(method, PATH)
    other = serve(application(EndpointSettings())).request(method, PATH)

    assert (worker.status_code, worker.headers["Allow"]) == (405, "POST")
    assert (other.status_code, other.headers.get("Allow")) == (404, None)


def test_a_process_that_is_no_worker_looks_like_one_without_the_route(serve):
    """404, whoever asks."""
    client = serve(application(EndpointSettings()))

    answers = [client.post(PATH, content=envelope(1), headers=h) for h in ({}, TRUSTED)]

    assert [each.status_code for each in answers] == [404, 404]
    assert answers[0].content == answers[1].content


def test_a_prefix_goes_before_the_path(serve):
    """As for every router."""
    app = FastAPI()
    app.include_router(worker_router(WORKER), prefix="/internal")
    client = serve(app)

    found = client.post(f"/internal{PATH}", content=envelope(1), headers=TRUSTED)
    looked = client.get(f"/internal{PATH}")
    missing = client.post(PATH, content=envelope(1), headers=TRUSTED)

    assert [each.status_code for each in (found, looked, missing)] == [204, 405, 404]


def test_a_body_without_end_is_refused_before_it_ends(serve):
    """Not read into memory first."""
    url = serve(application(WORKER.model_copy(update={"max_body": 4096}))).base_url
    connection = http.client.HTTPConnection(url.host, url.port, timeout=30)
    connection.putrequest("POST", PATH)
    for name, value in {**TRUSTED, "Transfer-Encoding": "chunked"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    for _ in range(5):
        connection.send(b"400\r\n" + b"x" * 1024 + b"\r\n")

    assert connection.getresponse().status == 413
    connection.close()


def test_a_client_that_goes_away_in_mid_body_runs_nothing(serve):
    """Half an envelope is none, and is not buried as one either."""
    client = serve(application())
    body = envelope(5).encode()
    head = "\r\n".join(f"{name}: {value}" for name, value in TRUSTED.items())
    with socket.create_connection((client.base_url.host, client.base_url.port)) as gone:
        announced = f"POST {PATH} HTTP/1.1\r\nHost: h\r\n{head}\r\nContent-Length: {len(body)}"
        gone.sendall(f"{announced}\r\n\r\n".encode() + body[:20])

    assert client.post(PATH, content=envelope(6), headers=TRUSTED).status_code == 204
    assert DOUBLED == [12]


def test_a_sync_handler_does_not_hold_up_the_server(serve):
    """C8: it runs on a thread."""
    running, free = threading.Event(), threading.Event()

    @task(name="fastapi.wait")
    def wait() -> None:
        running.set()
        free.wait(30)

    app = application()

    @app.get("/alive")
    async def alive() -> bool:
        return True

    client = serve(app)
    body = wait.request().model_dump_json(exclude={"deadline", "deduplicate"})
    answers: list[httpx.Response] = []
    posting = threading.Thread(
        target=lambda: answers.append(
            httpx.post(f"{client.base_url}{PATH}", content=body, headers=TRUSTED, timeout=60)
        )
    )
    posting.start()

    assert running.wait(30)
    assert client.get("/alive").json() is True
    free.set()
    posting.join(30)
    assert answers[0].status_code == 204


def test_it_reads_the_configuration(serve):
    """`[endpoint]`, as every other integration."""
    configure({"endpoint": {"worker": True, "secrets": [SECRET], "path": "/run"}})

    answer = serve(application(None)).post("/run", content=envelope(1), headers=TRUSTED)

    assert answer.status_code == 204


def test_a_worker_that_trusts_nobody_is_not_made():
    """C12: when the module is imported, before there is a server."""
    with pytest.raises(ConfigurationError, match="trusts no caller"):
        worker_router(EndpointSettings(worker=True))


@pytest.mark.parametrize("wrapped", [True, False], ids=["with lifespan", "alone"])
def test_a_deployment_does_not_start_without_authentication(wrapped):
    """The route checks itself at start-up, whatever other lifespan there is."""
    settings = EndpointSettings(worker=True, insecure=True)

    async def start(**options: Any) -> None:
        app = FastAPI(lifespan=lifespan()) if wrapped else FastAPI()
        app.include_router(worker_router(settings, **options))
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(start())
    with pytest.raises(ConfigurationError, match="insecure"):
        asyncio.run(start(deploy=True))


def test_the_route_is_not_in_the_document(serve):
    """By default: it is nobody's business but the queue's."""
    assert serve(application()).get("/openapi.json").json()["paths"] == {}


def test_the_document_describes_the_route_when_asked(serve):
    """Its body, every answer it can give, and who may call."""
    document = serve(application(include_in_schema=True)).get("/openapi.json").json()

    (route,) = document["paths"][PATH].values()
    body = route["requestBody"]["content"]["application/json"]["schema"]
    assert list(document["paths"][PATH]) == ["post"]
    assert set(body["required"]) == {"version", "task", "id", "created_at", "payload"}
    assert "deadline" not in body["properties"]
    assert "$ref" not in json.dumps(body)
    assert sorted(route["responses"]) == [
        *("200", "204", "400", "401", "404", "409", "413", "415", "429", "500", "503")
    ]
    assert route["security"] == [{"HTTPBearer": []}]
