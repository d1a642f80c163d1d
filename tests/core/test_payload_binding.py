"""C5: a call's arguments are bound to the names under which they travel."""

from __future__ import annotations

from typing import Any

import pytest

from dispatchers._payload.codec import PayloadCodec
from dispatchers._payload.errors import PayloadError


def task(user_id: int, locale: str = "en", *, urgent: bool = False) -> None: ...


@pytest.mark.parametrize(
    ("args", "kwargs", "bound"),
    [
        ((1,), {}, {"user_id": 1}),
        ((1, "de"), {}, {"user_id": 1, "locale": "de"}),
        ((1,), {"urgent": True}, {"user_id": 1, "urgent": True}),
        ((), {"locale": "de", "user_id": 1}, {"user_id": 1, "locale": "de"}),
        ((), {"user_id": 1}, {"user_id": 1}),
    ],
)
def test_arguments_bind_as_in_a_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], bound: dict[str, Any]
) -> None:
    """C5: by position and by name alike; absent defaults stay absent."""
    assert PayloadCodec(task).bind(args, kwargs) == bound


@pytest.mark.parametrize(
    ("args", "kwargs", "path", "message"),
    [
        ((), {}, "user_id", "argument 'user_id' is missing, and has no default: pass it"),
        ((), {"locale": "de"}, "user_id", "argument 'user_id' is missing"),
        (
            (1,),
            {"user_id": 2},
            "user_id",
            "argument 'user_id' is given twice, by position and by name",
        ),
        (
            (1,),
            {"locael": "de"},
            "locael",
            "argument 'locael' is not one of the task's; did you mean 'locale'?",
        ),
        (
            (1,),
            {"qqq": 1},
            "qqq",
            "is not one of the task's; known are 'locale', 'urgent', 'user_id'",
        ),
        (
            (1, "de", True),
            {},
            "",
            "3 arguments are given by position, where the task takes at most 2: pass",
        ),
        (
            (),
            {"user_id": 1, 7: 2},
            "",
            "an argument has an int for its name: pass arguments by name",
        ),
    ],
)
def test_what_does_not_bind_is_refused_by_name(
    args: tuple[Any, ...], kwargs: dict[Any, Any], path: str, message: str
) -> None:
    """C5: missing, unknown, given twice, one too many: each said with its cure."""
    with pytest.raises(PayloadError) as caught:
        PayloadCodec(task).bind(args, kwargs)

    assert caught.value.path == path
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"locale": "de"}, "argument 'user_id' is missing"),
        ({"user_id": 1, "locael": "de"}, "argument 'locael' is not one of the task's"),
        ({"user_id": 1, 7: 2}, "an argument has an int for its name"),
    ],
)
def test_encoding_checks_the_names_too(arguments: dict[Any, Any], message: str) -> None:
    """C5: whoever built the arguments, what is encoded fits the task."""
    with pytest.raises(PayloadError, match=message):
        PayloadCodec(task).encode(arguments)


def test_names_are_enough_for_what_is_encoded_next() -> None:
    """C5: `named` leaves to `encode` what `encode` finds anyway."""
    codec = PayloadCodec(task)

    named = codec.named((1,), {"locael": "de"})

    assert named == {"user_id": 1, "locael": "de"}
    with pytest.raises(PayloadError, match="did you mean 'locale'"):
        codec.encode(named)


def test_parameters_are_listed_in_their_order() -> None:
    """C5: the order is the signature's."""
    assert PayloadCodec(task).parameters == ("user_id", "locale", "urgent")
