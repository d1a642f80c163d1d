"""Whatever is sent, the answer is one of a few, and nothing untrusted runs.

`FUZZ_EXAMPLES=20000 pytest tests/http/test_fuzz.py` is the long form.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatchers.http import PATH, Answer, Endpoint, EndpointSettings
from dispatchers.http._request import NAMES
from dispatchers.testing.endpoint import Issuer, Scene
from dispatchers.testing.endpoint._scene import SECRETS
from dispatchers.testing.journal import Journal

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
KNOWN = {200, 204, 400, 401, 404, 405, 409, 413, 415, 429, 500, 503}
REFUSALS = {400, 401, 404, 405, 413, 415, 503}
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

latin = st.text(st.characters(max_codepoint=255))
words = st.sampled_from(
    ["Bearer", "bearer ", "Basic", "v1,", "application/json", *SECRETS, "0", "1", "-1", "9" * 40]
)
values = latin | words | st.lists(words | latin, max_size=3).map(" ".join)
headers = st.lists(st.tuples(st.sampled_from([*NAMES, "X-Other"]) | latin, values), max_size=8)
methods = st.sampled_from(["POST", "GET", "post", "", "OPTIONS"]) | latin
paths = st.sampled_from([PATH, f"{PATH}/", "/", f"//{PATH}", f"{PATH}%00"]) | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
FIELDS = ("version", "task", "id", "created_at", "payload", "delay", "eta", "expires",
          "priority", "time_limit", "max_attempts", "backoff", "idempotency_key",
          "headers", "context", "queue", "fingerprint")  # fmt: skip


def as_json(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """An issuer and a scene for all examples; what ran is in the journal."""
    with Issuer() as issuer:
        yield Scene(issuer, Journal(tmp_path_factory.mktemp("fuzz") / "journal"))


@pytest.fixture(scope="module")
def endpoint(shared) -> Endpoint:
    return Endpoint(shared.settings(skew_grace=300.0, max_body=4096))


def judged(answer: Answer) -> Answer:
    """It is one of those that there are, and says nothing but its kind."""
    assert answer.status in KNOWN
    assert answer.status != 500 or json.loads(answer.body) == {"outcome": "failed"}
    if answer.status != 204:
        assert set(json.loads(answer.body)) <= {"error", "outcome"}
    return answer


@given(methods, paths, headers, st.binary(max_size=5000))
@fuzzed
def test_anything_gets_an_answer(endpoint, shared, method, path, given_headers, body):
    """No exception, no unknown status; without credentials nothing is judged or run."""
    answer = judged(endpoint.handle(method, path, given_headers, body))

    authorization = " ".join(v for n, v in given_headers if n.lower() == "authorization")
    if not any(secret in authorization for secret in SECRETS):
        assert answer.status in REFUSALS
    assert shared.journal.texts == []


@given(headers, st.binary(max_size=500))
@fuzzed
def test_both_forms_answer_alike(endpoint, given_headers, body):
    """`ahandle` says what `handle` says."""
    request = ("POST", PATH, given_headers, body)

    assert asyncio.run(endpoint.ahandle(*request)) == endpoint.handle(*request)


@given(st.binary(max_size=3000) | JSON.map(as_json))
@fuzzed
def test_any_body_of_a_trusted_sender(endpoint, shared, body):
    """Settled, or handed back: never an exception, never a status that says nothing."""
    answer = judged(endpoint.handle("POST", PATH, shared.headers(), body))

    assert answer.status in {200, 413, 503}


@given(st.data())
@fuzzed
def test_an_envelope_with_changed_fields(endpoint, shared, data):
    """Each field may be anything."""
    envelope: dict[str, Any] = json.loads(shared.body)
    for name in data.draw(st.lists(st.sampled_from(FIELDS), max_size=3, unique=True)):
        envelope[name] = data.draw(JSON)
    envelope["payload"] = data.draw(JSON)

    answer = judged(endpoint.handle("POST", PATH, shared.headers(), as_json(envelope)))

    assert answer.status in {200, 413, 503}


@given(st.data())
@fuzzed
def test_a_token_with_changed_parts(endpoint, shared, data):
    """A byte of a good token is changed: it is good no longer."""
    token = shared.issuer.token()
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(latin.filter(lambda text: text != token[at]))
    changed = token[:at] + other + token[at + 1 :]

    answer = endpoint.handle("POST", PATH, shared.headers(changed), b"{}")

    assert answer.status == 401


GOOD = {"email_verified": True}
"""What may be made up, too."""
CLAIMS = ("iss", "aud", "email", "email_verified", "exp", "iat", "nbf")


@given(st.dictionaries(st.sampled_from(CLAIMS), JSON, min_size=1))
@fuzzed
def test_a_signed_token_with_any_claims(shared, endpoint, claims):
    """The issuer's signature does not make it ours."""
    from jwt import encode

    whole = {**shared.issuer.claims(), **claims}
    try:
        token = encode(whole, shared.issuer.keys["one"], "RS256", headers={"kid": "one"})
    except (TypeError, ValueError):  # what no token can say
        return

    answer = endpoint.handle("POST", PATH, shared.headers(token), b"{}")

    made_up = {name for name, value in claims.items() if value is not GOOD.get(name, GOOD)}
    fine = {"iat", "exp", "nbf"} >= made_up
    assert answer.status == 401 or (fine and answer.status == 200)


@given(st.text(), st.text(), st.text(), st.binary(max_size=200))
@fuzzed
def test_made_up_signatures(endpoint, shared, id_, seconds, signature, body):
    """Nobody without a key signs."""
    made_up = [
        ("webhook-id", id_),
        ("webhook-timestamp", seconds),
        ("webhook-signature", signature),
    ]

    answer = endpoint.handle("POST", PATH, [*shared.headers(None), *made_up], body)

    assert answer.status == 401


@given(st.dictionaries(st.sampled_from(sorted(EndpointSettings.model_fields)), JSON, max_size=4))
@fuzzed
def test_settings_work_or_are_refused(values):
    """Nothing between: no exception of another kind."""
    from pydantic import ValidationError

    from dispatchers import ConfigurationError

    try:
        Endpoint(EndpointSettings.model_validate({"worker": True, **values}))
    except (ValidationError, ConfigurationError):
        return
