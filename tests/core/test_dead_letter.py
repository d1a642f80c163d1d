"""Dead letters pack and unpack themselves; those of 0.1.0 are read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dispatchers import DeadLetter
from dispatchers._models.outcome import RunFailure

GOLDEN = Path(__file__).parent / "golden"
LETTERS = {
    "fullest": DeadLetter(
        id="0123456789abcdef0123456789abcdef",
        task="shop.pack",
        queue="mail",
        reason="failed",
        attempts=3,
        deliveries=2,
        error=RunFailure(
            kind="timeout",
            exception_type="TimeoutError",
            message="no answer, é",
            where="shop/tasks.py:7 in pack",
        ),
        died_at=datetime(2026, 11, 21, 12, 0, 0, 1, tzinfo=UTC),
        body=b'{"version":1,"task":"shop.pack"}\xff',
    ),
    "smallest": DeadLetter(
        id="7",
        task="",
        reason="malformed",
        died_at=datetime(2026, 11, 21, 12, tzinfo=UTC),
        body=b"",
    ),
}


def test_the_golden_files_are_all_compared():
    """A file that no test reads pins nothing."""
    files = {path.stem for path in GOLDEN.glob("dead_letter_*.json")}

    assert files == {f"dead_letter_0_1_{name}" for name in LETTERS}


@pytest.mark.parametrize("name", LETTERS)
def test_letters_of_0_1_0_are_read(name):
    """C9: what 0.1.0 stored is listed and dispatched again by this version."""
    golden = (GOLDEN / f"dead_letter_0_1_{name}.json").read_text()

    assert DeadLetter.from_json(golden) == LETTERS[name]
    assert DeadLetter.from_json(golden.encode()) == LETTERS[name]


@pytest.mark.parametrize("name", LETTERS)
def test_a_letter_arrives_equal(name):
    """What is packed is unpacked as it was, with its envelope or with one kept beside it."""
    letter = LETTERS[name]

    bare = letter.to_json(body=False)

    assert DeadLetter.from_json(letter.to_json()) == letter
    assert "body" not in json.loads(bare)
    assert DeadLetter.from_json(bare, body=letter.body) == letter


def test_an_envelope_beside_the_text_replaces_the_one_in_it():
    """A store that edits a letter packs it anew, or keeps the new envelope beside the old text."""
    letter = LETTERS["fullest"]

    edited = DeadLetter.from_json(letter.to_json(), body=b"new")

    assert edited == letter.model_copy(update={"body": b"new"})


def test_fields_of_a_later_version_are_left_out():
    """During a deploy, or after a step back, an older process reads what a newer one stored."""
    later = json.loads(LETTERS["fullest"].to_json())
    later["colour"], later["error"]["depth"] = "red", 3

    assert DeadLetter.from_json(json.dumps(later)) == LETTERS["fullest"]


@pytest.mark.parametrize("text", ["", "[]", "5", "{}", '{"id": 5}', "nonsense"])
@pytest.mark.parametrize("body", [None, b""])
def test_what_is_no_letter_is_a_value_error(text, body):
    """A store of several things can tell which of them are letters."""
    with pytest.raises(ValueError, match=r"."):
        DeadLetter.from_json(text, body=body)
