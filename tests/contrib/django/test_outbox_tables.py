"""The migration makes the tables that `dispatchers.outbox` defines, in each database."""

from __future__ import annotations

from typing import Any

import pytest
from dispatchers_django.models import OutboxLeader, OutboxRow
from django.db import connections

from dispatchers.outbox import TABLES, schema

from .databases import KINDS, database

MODELS = (OutboxRow, OutboxLeader)


def described(alias: str) -> dict[str, Any]:
    """Return columns, keys and indexes of each table, as the database tells them."""
    connection = connections[alias]
    with connection.cursor() as cursor:
        return {
            table.name: (_columns(connection, cursor, table.name), _keys(connection, cursor, table))
            for table in TABLES
        }


def _columns(connection: Any, cursor: Any, table: str) -> list[tuple[Any, ...]]:
    inspect = connection.introspection
    found = inspect.get_table_description(cursor, table)
    return [
        (
            each.name,
            inspect.get_field_type(each.type_code, each),
            # Of SQLite the size stands in the type, of PostgreSQL in `display_size`.
            each.internal_size if each.type_code != 1043 else each.display_size,
            each.null_ok and each.name != "seq",  # a key holds none, whatever SQLite says
            each.default,
            getattr(each, "collation", None),
        )
        for each in found
    ]


def _keys(connection: Any, cursor: Any, table: Any) -> list[tuple[Any, ...]]:
    found = connection.introspection.get_constraints(cursor, table.name)
    own = {each.name for each in table.indexes}
    return sorted(
        (name if name in own else "", tuple(key["columns"]), key["unique"], key["primary_key"])
        for name, key in found.items()
        # A primary key of text has a second index in PostgreSQL, for LIKE: of one row per alias.
        if not name.endswith("_like")
    )


def dropped(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"DROP TABLE {table.name}")


@pytest.mark.parametrize("kind", KINDS)
def test_the_migration_makes_the_tables_of_the_core(kind):
    """Column by column, key by key: one SQL serves both."""
    with database(kind) as alias:
        connection = connections[alias]
        migrated = described(alias)
        dropped(alias)
        with connection.cursor() as cursor:
            for statement in schema(connection.vendor):
                cursor.execute(statement)
        own = described(alias)
        dropped(alias)
        with connection.schema_editor() as editor:
            for model in MODELS:
                editor.create_model(model)

    assert migrated == own
    assert [len(columns) for columns, _ in own.values()] == [11, 4]
