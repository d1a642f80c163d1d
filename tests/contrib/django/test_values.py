"""C5: Django's own values arrive as the declared type, equal to what was passed."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import IntegerChoices, TextChoices
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from dispatchers import task


class Colour(TextChoices):
    RED = "red", "Red"


class Level(IntegerChoices):
    HIGH = 3, "High"


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (Colour.RED, "red"),
        (mark_safe("<b>safe</b>"), "<b>safe</b>"),
        (lazystr("lazy"), None),
        (gettext_lazy("Yes"), None),
    ],
)
def test_texts_of_django_arrive_as_text(value: Any, arrives: str | None) -> None:
    """A choice and a safe text are text; a lazy one is none yet, and is refused with words."""
    seen: list[object] = []

    @task(name="values.text")
    def note(text: str) -> None:
        seen.append(text)

    response = note.dispatch(text=value)

    if arrives is None:
        assert response.error is not None
        assert "text" in response.error.message
        return
    assert response.ok, response.error
    assert (seen, type(seen[0])) == ([arrives], str)


def test_numbers_of_django_arrive_as_numbers() -> None:
    """`IntegerChoices` for `int`, and each as itself where it is declared."""
    seen: list[object] = []

    @task(name="values.number")
    def note(number: int, level: Level, colour: Colour, part: float) -> None:
        seen.extend((number, level, colour, part))

    response = note.dispatch(
        number=Level.HIGH, level=Level.HIGH, colour=Colour.RED, part=Level.HIGH
    )

    assert response.ok, response.error
    assert seen == [3, Level.HIGH, Colour.RED, 3.0]
    assert [type(each) for each in seen] == [int, Level, Colour, float]


def test_choices_within_containers_arrive() -> None:
    """In lists, dictionaries and untyped arguments as well."""
    seen: list[object] = []

    @task(name="values.nested")
    def note(names: list[str], table: dict[str, Any]) -> None:
        seen.extend((names, table))

    response = note.dispatch(names=[Colour.RED], table={"a": (Colour.RED, Level.HIGH)})

    assert response.ok, response.error
    assert seen == [["red"], {"a": ["red", 3]}]
