"""The route does what its OpenAPI document says, whatever is sent to it."""

import os
from collections import Counter
from typing import Any

import pytest
from dispatchers_fastapi import worker_router
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from requests import Session

from dispatchers import task
from dispatchers.http import PATH, EndpointSettings

SECRET = "a-secret-that-is-long"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
"""For each transport and kind of data; a long run sets the variable."""


@task(name="document.any")
def anything(number: int = 0, text: str = "") -> None:
    """Takes what there is."""


@pytest.fixture(scope="module")
def schemathesis() -> Any:
    """The module, which is slow to import: only where its tests run."""
    import schemathesis

    return schemathesis


@pytest.fixture
def promised(schemathesis: Any) -> list[Any]:
    """What the document promises; not that good data is good: a task has a say, too."""
    schemathesis.checks.load_all_checks()
    names = (
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    )
    return schemathesis.checks.CHECKS.get_by_names(list(names))


@pytest.mark.slow
@pytest.mark.timeout(0 if EXAMPLES > 1000 else 120)
@pytest.mark.parametrize("transport", ["cloud_tasks", "plain"])
@pytest.mark.parametrize("kind", ["positive", "negative"])
def test_every_answer_is_one_that_the_document_has(serve, schemathesis, promised, transport, kind):
    """Schemathesis makes envelopes and what is none, with credentials and without."""
    app = FastAPI()
    where = EndpointSettings(worker=True, secrets=SECRET, transport=transport)
    app.include_router(worker_router(where, include_in_schema=True))
    url = str(serve(app).base_url).rstrip("/")
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    mode = schemathesis.GenerationMode(kind)
    seen: Counter[int] = Counter()

    with Session() as session:

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=EXAMPLES == 60,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(
            case=schema[PATH]["POST"].as_strategy(generation_mode=mode),
            trusted=st.integers(0, 9).map(bool),
            known=st.booleans(),
        )
        def answered(case: Any, trusted: bool, known: bool) -> None:
            if known and isinstance(case.body, dict):
                case.body |= {"task": "document.any", "payload": {"number": 1}}
            headers = {"Authorization": f"Bearer {SECRET}"} if trusted else {}
            response = case.call_and_validate(session=session, headers=headers, checks=promised)
            seen[response.status_code] += 1
            assert response.status_code != 500, response.text
            assert trusted or response.status_code == 401

        answered()

    print(dict(sorted(seen.items())))
    assert seen.total() >= EXAMPLES
    assert seen[204 if kind == "positive" else 401]
