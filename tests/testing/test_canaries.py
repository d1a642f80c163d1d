"""Canaries: they name what another library has changed."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from dispatchers.testing.canaries import Canary

TAKES = "acme_library:Channel.take takes (self, timeout, more=None, *rest, **options)"


class Base:
    def __init__(self) -> None:
        self._kept: list[int] = []


class Channel(Base):
    size = 3

    def take(self, timeout, more=None, *rest, **options): ...

    @staticmethod
    def open(url): ...

    @classmethod
    def make(cls, name): ...


@pytest.fixture(autouse=True)
def _library(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("acme_library")
    library.Channel = Channel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acme_library", library)


@pytest.mark.parametrize(
    "canary",
    [
        Canary("acme_library:Channel"),
        Canary("acme_library:Channel.size"),
        Canary("acme_library:Channel._kept"),
        Canary("acme_library:Channel.take"),
        Canary("acme_library:Channel.take", "self", "timeout"),
        Canary("acme_library:Channel.take", "self", "timeout", "more"),
        Canary("acme_library:Channel.open", "url"),
        Canary("acme_library:Channel.make", "cls", "name"),
        Canary("builtins:dict.update"),
        Canary("builtins:dict.update", "self", "other"),
        Canary("json"),
    ],
    ids=str,
)
def test_what_is_as_expected_is_no_problem(canary: Canary) -> None:
    """Names, instance attributes and parameters that are there pass."""
    assert canary.problem() is None


@pytest.mark.parametrize(
    ("canary", "words"),
    [
        (Canary("acme_library:Chanel"), "acme_library:Chanel: 'Chanel' is missing"),
        (Canary("acme_library:Channel._lost"), "acme_library:Channel._lost: '_lost' is missing"),
        (
            Canary("acme_library:Channel.take", "self"),
            f"{TAKES}, and is called with (self)",
        ),
        (
            Canary("acme_library:Channel.take", "self", "limit"),
            f"{TAKES}, and is called with (self, limit)",
        ),
        (
            Canary("acme_library:Channel.take", "timeout", "self"),
            f"{TAKES}, and is called with (timeout, self)",
        ),
        (
            Canary("acme_library:Channel.size", "self"),
            "acme_library:Channel.size takes (), and is called with (self)",
        ),
    ],
    ids=str,
)
def test_a_change_is_told_in_a_sentence(canary: Canary, words: str) -> None:
    """What is gone, renamed, reordered or needs more arguments is named."""
    assert canary.problem() == words


def test_a_module_that_is_gone_raises() -> None:
    """A module that cannot be imported is an ImportError, as ever."""
    with pytest.raises(ModuleNotFoundError):
        Canary("acme_nothing:Channel").problem()
