"""An issuer, and what an endpoint is tried with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatchers.testing import Journal
from dispatchers.testing.endpoint import Issuer, Scene


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
def scene(issuer: Issuer, tmp_path: Path) -> Scene:
    return Scene(issuer, Journal(tmp_path / "journal"))
