"""C11: the fingerprint changes when what a task accepts changes, and not otherwise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, PlainValidator

from dispatchers._payload.codec import PayloadCodec


class First(BaseModel):
    """One."""

    number: int
    tree: list[First] = []


class Second(BaseModel):
    """Another, of the same form."""

    tree: list[Second] = []
    number: int = Field(title="A number", description="Documented", examples=[1])


class Wider(BaseModel):
    number: int | None
    tree: list[Wider] = []


class Word(StrEnum):
    YES = "yes"
    NO = "no"


class Turned(StrEnum):
    NO = "no"
    YES = "yes"


def base(user_id: int, locale: str = "en") -> None: ...
def other_default(user_id: int, locale: str = "de") -> None: ...
def other_order(locale: str = "en", *, user_id: int) -> None: ...
def documented(
    user_id: Annotated[int, Field(description="Whose")],
    locale: Annotated[str, Field(title="L")] = "",
) -> None:
    """Documented."""


def other_name(user: int, locale: str = "en") -> None: ...
def other_type(user_id: str, locale: str = "en") -> None: ...
def other_required(user_id: int, locale: str) -> None: ...
def constrained(user_id: Annotated[int, Field(gt=0)], locale: str = "en") -> None: ...
def longer(user_id: int, locale: str = "en", urgent: bool = False) -> None: ...


def of(annotation: Any) -> str:
    def task(x) -> None: ...

    task.__annotations__["x"] = annotation
    return PayloadCodec(task).fingerprint


@pytest.mark.parametrize("same", [other_default, other_order, documented])
def test_what_does_not_change_the_arguments_does_not_count(same: Callable[..., None]) -> None:
    """C11: defaults, order and words may differ between two deployments."""
    assert PayloadCodec(same).fingerprint == PayloadCodec(base).fingerprint


@pytest.mark.parametrize(
    "other", [other_name, other_type, other_required, constrained, longer], ids=lambda f: f.__name__
)
def test_what_changes_the_arguments_counts(other: Callable[..., None]) -> None:
    """C11: names, types, constraints, required-ness."""
    assert PayloadCodec(other).fingerprint != PayloadCodec(base).fingerprint


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (First, Second),
        (dict[str, First], dict[str, Second]),
        (int | str, str | int),
        (Literal["a", "b"], Literal["b", "a"]),
        (Word, Turned),
    ],
)
def test_names_and_order_of_definitions_do_not_count(left: Any, right: Any) -> None:
    """C11: a class may be renamed, its fields may be sorted."""
    assert of(left) == of(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (First, Wider),
        (UUID, str),
        (datetime, str),
        (bytes, str),
        (int, float),
        (list[int], set[int]),
        (tuple[int, str], tuple[str, int]),
        (Literal["a"], Literal["b"]),
        (int | None, int),
    ],
)
def test_types_count_wherever_they_stand(left: Any, right: Any) -> None:
    """C11: what travels as the same kind of JSON may still be another type."""
    assert of(left) != of(right)


def test_a_field_named_like_a_keyword_counts() -> None:
    """C11: `title` and `default` are words about a schema, unless they are names of fields."""

    class Titled(BaseModel):
        title: int
        default: str

    class Retitled(BaseModel):
        title: str
        default: str

    assert of(Titled) != of(Retitled)


def test_a_type_without_json_schema_has_a_fingerprint() -> None:
    """C11: it stands as anything."""
    assert len(of(Annotated[object, PlainValidator(lambda value: value)])) == 12


def test_it_is_the_same_in_every_process() -> None:
    """C11: 12 hexadecimal digits that depend on no hash seed. A change breaks deployments."""
    script = (
        "from dispatchers._payload.codec import PayloadCodec\n"
        "from uuid import UUID\n"
        "def task(user_id: int, ids: list[UUID] | None = None): ...\n"
        "print(PayloadCodec(task).fingerprint)"
    )

    seen = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }

    assert seen == {"50eaff4027a1"}
