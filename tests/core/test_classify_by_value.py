"""Failures that are classified by what they say: a function's answer, an HTTP status."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any

import pytest

from dispatchers import Backoff, Outcome, by_http_status, classify, run_envelope, task
from dispatchers._models.envelope import encode
from dispatchers._models.failures import _classes


class Handler(BaseHTTPRequestHandler):
    """Answers `/STATUS`, with the query as `Retry-After`."""

    def do_GET(self) -> None:
        status, _, after = self.path[1:].partition("?")
        self.send_response(int(status))
        if after:
            self.send_header("Retry-After", after.replace("+", " "))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}/"
        found.shutdown()


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = dict(_classes)
    yield
    _classes.clear()
    _classes.update(before)


def by_httpx(url: str) -> None:
    import httpx

    httpx.get(url, trust_env=False).raise_for_status()


def by_requests(url: str) -> None:
    import requests

    requests.get(url, proxies={"http": ""}, timeout=60).raise_for_status()


def by_urllib(url: str) -> None:
    import urllib.error
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=60)
    except urllib.error.HTTPError as exc:
        exc.close()
        raise


def by_aiohttp(url: str) -> None:
    import asyncio

    import aiohttp  # type: ignore[import-not-found,unused-ignore]

    async def get() -> None:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            response.raise_for_status()

    asyncio.run(get())


CLIENTS = [
    pytest.param(fetch, marks=pytest.mark.skipif(not find_spec(name), reason=f"no {name}"), id=name)
    for name, fetch in {
        "httpx": by_httpx,
        "requests": by_requests,
        "urllib": by_urllib,
        "aiohttp": by_aiohttp,
    }.items()
]
Fetch = Callable[[str], None]


def outcome_of(work: Callable[[], object], **options: Any) -> Outcome:
    """What a worker makes of a task that does this."""

    @task(name="classify.work", max_attempts=5, backoff=Backoff(initial=7), **options)
    def work_of_it() -> None:
        work()

    return run_envelope(encode(work_of_it.request()))


@pytest.mark.parametrize("fetch", CLIENTS)
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "permanent"), (401, "permanent"), (404, "permanent"), (410, "permanent"),
        (422, "permanent"), (501, "permanent"), (408, "failed"), (409, "failed"),
        (423, "failed"), (425, "failed"), (429, "failed"), (500, "failed"), (502, "failed"),
        (503, "failed"), (504, "failed"),
    ],
)  # fmt: skip
def test_a_client_s_status_decides(server: str, fetch: Fetch, status: int, reason: str) -> None:
    """A 404 is not tried again; a server that is down is."""
    outcome = outcome_of(lambda: fetch(f"{server}{status}"))

    assert outcome.reason.value == reason


@pytest.mark.parametrize("fetch", CLIENTS)
def test_retry_after_is_honoured(server: str, fetch: Fetch) -> None:
    """Seconds or a date, where that is later than the back-off, and a day at most."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=500), usegmt=True)
    texts = ["120", "3", "99999999999", date.replace(" ", "+"), "soon"]

    waits = [outcome_of(lambda t=text: fetch(f"{server}503?{t}")).after for text in texts]

    assert waits[0] == 120
    assert 0 < waits[1] <= 7
    assert waits[2] == 86_400
    assert 450 < waits[3] <= 500
    assert 0 < waits[4] <= 7


def test_a_function_decides_by_value() -> None:
    """Its answer for one exception: a word, seconds, or nothing."""
    answers: list[Any] = ["permanent", "transient", 60, timedelta(minutes=2), None]

    class GatewayError(OSError): ...

    classify(OSError, "permanent")
    classify(GatewayError, lambda exc: answers[exc.args[0]])

    def failed(index: int) -> Callable[[], object]:
        def work() -> None:
            raise GatewayError(index)

        return work

    found = [outcome_of(failed(index)) for index in range(len(answers))]

    assert [each.reason.value for each in found] == [
        "permanent", "failed", "failed", "failed", "permanent",
    ]  # fmt: skip
    assert [each.after for each in found][2:4] == [60, 120]


@pytest.mark.parametrize("answer", ["never", object(), float("nan"), True])
def test_a_function_that_errs_decides_nothing(
    answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    """C9: the run is tried again, and the log says why."""

    class OddError(Exception): ...

    classify(OddError, lambda _: answer)  # type: ignore[arg-type,return-value]

    def work() -> None:
        raise OddError

    assert outcome_of(work).reason.value == "failed"
    assert "classifying a failure raised" in caplog.text


def test_an_application_s_own_word_beats_the_status(server: str) -> None:
    """`classify` of the client's exception, or of a subclass."""
    import urllib.error

    classify(urllib.error.HTTPError, "transient")

    assert outcome_of(lambda: by_urllib(f"{server}404")).reason.value == "failed"


def test_a_wrapper_of_one_s_own_is_classified_by_its_cause(server: str) -> None:
    """`classify(YourError, by_http_status)`."""

    class ShopError(Exception): ...

    classify(ShopError, by_http_status)

    def work() -> None:
        try:
            by_urllib(f"{server}404")
        except OSError as exc:
            raise ShopError from exc

    assert outcome_of(work).reason.value == "permanent"


def test_no_client_is_imported() -> None:
    """Whoever has none of them pays nothing."""
    code = (
        "import dispatchers, sys; print({'httpx', 'requests', 'aiohttp', 'email'} & {*sys.modules})"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


def test_what_is_neither_is_refused() -> None:
    """At once."""
    with pytest.raises(TypeError, match="nor a function"):
        classify(OSError, 404)  # type: ignore[call-overload]
