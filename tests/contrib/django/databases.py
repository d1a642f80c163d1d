"""Databases of the machine for tests: SQLite, and a schema each in PostgreSQL and MariaDB.

`DISPATCHERS_TEST_POSTGRES_URL` and `DISPATCHERS_TEST_MARIADB_URL` name the servers; by default
those on this machine's usual ports.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

# Read here: during a test the variables of this prefix are taken away.
POSTGRES = os.environ.get(
    "DISPATCHERS_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/test"
)
MYSQL = os.environ.get("DISPATCHERS_TEST_MARIADB_URL", "mysql://root@127.0.0.1:3306")
KINDS = ("sqlite", "postgresql", "mysql")


@contextmanager
def database(kind: str) -> Iterator[str]:
    """The alias of a migrated database of this kind, for as long as the block lasts."""
    if kind == "sqlite":
        yield "default"
        return
    make = {"postgresql": _postgresql, "mysql": _mysql}[kind]
    with make(f"dispatchers_{uuid4().hex[:12]}") as settings:
        connections.settings[kind] = connections.configure_settings(
            {"default": connections.settings["default"], kind: settings}
        )[kind]
        try:
            migrate(kind)
            yield kind
        finally:
            connections[kind].close()
            del connections[kind], connections.settings[kind]


def migrate(alias: str) -> None:
    """Make the tables of `dispatchers_django` alone."""
    executor = MigrationExecutor(connections[alias])
    leaves = [each for each in executor.loader.graph.leaf_nodes() if each[0] == "dispatchers"]
    executor.migrate(leaves)


def _missing(why: str) -> None:
    if os.environ.get("DISPATCHERS_REQUIRE_SERVICES"):
        raise RuntimeError(why)
    pytest.skip(why)


def _place(url: str) -> dict[str, Any]:
    to = urlsplit(url)
    return {
        "NAME": to.path[1:],
        "USER": to.username or "",
        "PASSWORD": to.password or "",
        "HOST": to.hostname or "",
        "PORT": str(to.port or ""),
    }


@contextmanager
def _postgresql(name: str) -> Iterator[dict[str, Any]]:
    """A schema of its own, so that no table of others is touched."""
    psycopg = pytest.importorskip("psycopg", reason="needs pip install 'psycopg[binary]'")
    try:
        server = psycopg.connect(POSTGRES, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError:
        _missing("no PostgreSQL at DISPATCHERS_TEST_POSTGRES_URL, or on 127.0.0.1:5432")
    options = {"options": f"-c search_path={name}", "application_name": name}
    with server:
        server.execute(f"CREATE SCHEMA {name}")
        yield {
            "ENGINE": "django.db.backends.postgresql",
            **_place(POSTGRES),
            "OPTIONS": options,
        }
        server.execute(f"DROP SCHEMA {name} CASCADE")


@contextmanager
def _mysql(name: str) -> Iterator[dict[str, Any]]:
    """A database of its own in MariaDB or MySQL."""
    pymysql = pytest.importorskip("pymysql", reason="needs pip install pymysql")
    pymysql.install_as_MySQLdb()
    place = _place(MYSQL)
    own = {"host": place["HOST"], "user": place["USER"], "password": place["PASSWORD"]}
    try:
        server = pymysql.connect(**own, port=int(place["PORT"] or 3306), autocommit=True)
    except pymysql.err.OperationalError:
        _missing("no MariaDB at DISPATCHERS_TEST_MARIADB_URL, or on 127.0.0.1:3306")
    with server, server.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        yield {"ENGINE": "django.db.backends.mysql", **place, "NAME": name}
        cursor.execute(f"DROP DATABASE {name}")
