"""A stand-in for the whole session, and credentials that no test may show."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .service import CREDENTIALS, Service


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """A stand-in that tests share: each makes queues of its own."""
    with Service() as found:
        yield found


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    # No file of the machine, and no metadata service, has a say.
    for name, value in {
        **CREDENTIALS,
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
