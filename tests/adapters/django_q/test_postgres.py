"""`django_q` keeps the contract on a database server.

`DISPATCHERS_TEST_POSTGRES_URL` names it; by default the one on this machine's usual port.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connections

from dispatchers.testing import DispatcherConformance

from .harness import OrmHarness

psycopg = pytest.importorskip("psycopg", reason="needs pip install 'psycopg[binary]'")

pytestmark = pytest.mark.slow  # the same code but for the database

# Read here: during a test the variables of this prefix are taken away.
URL = os.environ.get("DISPATCHERS_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/test")
ALIAS = "queue_server"


class PostgresHarness(OrmHarness):
    """Rows of a schema of PostgreSQL."""

    of_broker = {"orm": ALIAS}

    @contextmanager
    def stalled(self, dispatcher: Any) -> Generator[None]:
        """Another session has the table to itself for a while."""
        with psycopg.connect(URL) as session:
            schema = connections.settings[ALIAS]["OPTIONS"]["options"].rpartition("=")[2]
            session.execute(f"LOCK TABLE {schema}.django_q_ormq")
            yield
            session.rollback()


@pytest.fixture(scope="module")
def server(_tables: None) -> Iterator[None]:
    """The tables of django-q2 in a schema of these tests' own."""
    schema = f"dispatchers_{uuid4().hex}"
    with psycopg.connect(URL, autocommit=True) as session:
        session.execute(f"CREATE SCHEMA {schema}")
    place = urlsplit(URL)
    connections.settings[ALIAS] = {
        **connections.settings["default"],
        "ENGINE": "django.db.backends.postgresql",
        "NAME": place.path[1:],
        "USER": place.username,
        "PASSWORD": place.password or "",
        "HOST": place.hostname,
        "PORT": place.port or 5432,
        "OPTIONS": {"options": f"-c search_path={schema}"},
    }
    call_command("migrate", "django_q", database=ALIAS, verbosity=0)
    yield
    connections[ALIAS].close()
    del connections.settings[ALIAS]
    with psycopg.connect(URL, autocommit=True) as session:
        session.execute(f"DROP SCHEMA {schema} CASCADE")


class TestPostgres(DispatcherConformance):
    @pytest.fixture
    def harness(self, server: None) -> OrmHarness:
        return PostgresHarness()
