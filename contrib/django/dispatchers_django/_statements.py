"""Statements on one row, from the columns of its model.

To compose one takes Django's ORM longer than it takes a database to execute it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connections, transaction
from django.db.models import Model

__all__ = ["insert", "update"]


def insert(row: Model, *, using: str) -> None:
    """Write a row that is new; the model's signals are not sent, as by `bulk_create`."""
    connection = connections[using]
    fields = row._meta.local_concrete_fields
    columns = ", ".join(_column(each, connection) for each in fields)
    marks = ", ".join(["%s"] * len(fields))
    values = [each.get_db_prep_save(getattr(row, each.attname), connection) for each in fields]
    # Names of the model's own, which are quoted.
    sql = f"INSERT INTO {_table(row, connection)} ({columns}) VALUES ({marks})"  # noqa: S608
    _execute(using, sql, values)


def update(row: Model, values: Mapping[str, Any], found: Mapping[str, Any], *, using: str) -> bool:
    """Set fields of a row where it is still `found` so; false where it is not."""
    connection: Any = connections[using]
    if connection.features.interprets_empty_strings_as_nulls:  # Oracle: no text equals ''
        rows = type(row)._default_manager.using(using).filter(pk=row.pk, **found)
        return rows.update(**values) == 1
    changes, given = _pairs(row, values, connection)
    conditions, known = _pairs(row, {row._meta.pk.name: row.pk, **found}, connection)
    sql = f"UPDATE {_table(row, connection)} SET {', '.join(changes)} WHERE "  # noqa: S608 - as above
    return _execute(using, sql + " AND ".join(conditions), [*given, *known]) == 1


def _execute(using: str, sql: str, values: Sequence[Any]) -> int:
    # As by the ORM, an error has the transaction rolled back.
    with transaction.mark_for_rollback_on_error(using), connections[using].cursor() as cursor:
        cursor.execute(sql, values)
        return int(cursor.rowcount)


def _pairs(row: Model, values: Mapping[str, Any], connection: Any) -> tuple[list[str], list[Any]]:
    """Return `column = %s` for each field, and the values as the database takes them."""
    fields: list[Any] = [row._meta.get_field(name) for name in values]
    given = zip(fields, values.values(), strict=True)
    taken = [field.get_db_prep_save(value, connection) for field, value in given]
    return [f"{_column(each, connection)} = %s" for each in fields], taken


def _column(field: Any, connection: Any) -> str:
    return str(connection.ops.quote_name(field.column))


def _table(row: Model, connection: Any) -> str:
    return str(connection.ops.quote_name(row._meta.db_table))
