"""Django, set up once in this process, as for the glue's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ...contrib.django.conftest import tables  # noqa: TID252 - test folders have no names

__all__ = ["tables"]


@pytest.fixture(autouse=True)
def installed(tables: None, isolation: None) -> Iterator[None]:
    """The tables are there, and no connection stays open."""
    from django.db import connections

    yield
    connections.close_all()
