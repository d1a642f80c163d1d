"""The dispatcher and the endpoint of one configuration are compared at the start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import dispatchers
from dispatchers import ConfigurationError

URL, ACCOUNT = "https://worker.example", "tasks@shop.example"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    dispatchers.configure()


def checked(endpoint: dict[str, Any], **options: Any) -> None:
    own = {
        "backend": "cloud_tasks",
        "project": "p",
        "location": "l",
        "queue": "default",
        "worker_url": URL,
        "service_account": ACCOUNT,
        **options,
    }
    targets = {"targets": {"gcp": {"default": own}}, "endpoint": endpoint}
    dispatchers.configure(targets, target="gcp")
    dispatchers.check()


OIDC = {"audience": URL, "emails": ACCOUNT}
SECRET = "one-of-your-own-of-16-or-more"


@pytest.mark.parametrize(
    ("endpoint", "options"),
    [
        ({"oidc": OIDC}, {}),
        ({"oidc": OIDC}, {"worker_url": f"{URL}/", "audience": URL}),
        ({"oidc": {**OIDC, "audience": ["https://x", f"{URL}/"]}}, {"worker_url": f"{URL}/"}),
        ({"oidc": {**OIDC, "emails": ACCOUNT.upper()}}, {}),
        ({"path": "/run"}, {"path": "/run"}),
        ({"secrets": [SECRET]}, {"service_account": False, "secret": SECRET}),
        ({"secrets": [SECRET]}, {}),
        ({}, {"path": "/elsewhere"}),
    ],
)
def test_sides_that_agree_pass(endpoint: dict[str, Any], options: dict[str, Any]) -> None:
    """Also where only one of them is known."""
    checked(endpoint, **options)


@pytest.mark.parametrize(
    ("endpoint", "options", "said"),
    [
        ({"oidc": OIDC}, {"worker_url": f"{URL}/"}, f"expects '{URL}', and the token is for"),
        ({"oidc": OIDC}, {"audience": "https://other"}, "'https://other'"),
        ({"oidc": {**OIDC, "emails": "a@b.example"}}, {}, f"service_account is '{ACCOUNT}'"),
        ({"path": "/run"}, {}, "endpoint.path is '/run'"),
        (
            {"secrets": [SECRET]},
            {"service_account": False, "secret": "another-secret-of-16"},
            "secret is none of endpoint.secrets",
        ),
    ],
)
def test_sides_that_differ_are_told(
    endpoint: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    """C12: each push would be 401 or 404; the message has both values, and never a secret."""
    with pytest.raises(ConfigurationError) as caught:
        checked(endpoint, **options)

    assert said in str(caught.value)
    assert "another-secret" not in str(caught.value)
