"""Parts of harnesses: abilities that a place may lack, and stores that they open."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Generic, NoReturn, TypeVar

from dispatchers._errors import nearest

T = TypeVar("T")


class WithAbilities:
    """A harness that says with a reason what it cannot do."""

    _abilities: ClassVar[Mapping[str, str]] = {}
    """What a harness of its kind is asked to do, by name."""
    without: ClassVar[Mapping[str, str]] = {}
    """What it has not, by the names in `_abilities`, with the reason why."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        # When the class is made: a misspelt name would skip nothing, and fail the cases instead.
        for ability in cls.without:
            if ability not in cls._abilities:
                raise TypeError(
                    f"{cls.__name__}.without: no ability {ability!r}"
                    f"{nearest(ability, cls._abilities)}"
                )

    def has(self, ability: str) -> bool:
        """Return true if it has an ability.

        Raises:
            KeyError: The ability is unknown.
        """
        # A misspelt ability must not count as one that it has.
        self._abilities[ability]
        return ability not in self.without

    def need(self, *abilities: str) -> None:
        """Skip the case if one of the abilities is lacking; the reason is the harness's.

        Raises:
            KeyError: The ability is unknown.
        """
        for ability in abilities:
            if not self.has(ability):
                self._skip(f"cannot {self._abilities[ability]}: {self.without[ability]}")

    def _skip(self, reason: str) -> NoReturn:
        # Late: a harness can also be used without pytest.
        import pytest

        pytest.skip(reason)


class OpeningHarness(WithAbilities, ABC, Generic[T]):
    """A harness that opens what it is about again and again, and closes all of it at the end."""

    @property
    @abstractmethod
    def opener(self) -> Callable[[], T]:
        """A function without arguments that opens it, as another process does."""

    @contextmanager
    def stepped(self, seconds: float) -> Generator[None]:
        """Set the clock that the store reads forward, or backward, until the block ends.

        As it is, this replaces `time.time` in this process.
        """
        import pytest

        real = time.time
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda: real() + seconds)
            yield

    def close(self) -> None:
        """Give everything back; what was opened is closed already."""

    def end(self) -> None:
        """Close all that the case has opened, then the harness."""
        for each in self._made:
            self._close_one(each)
        self.close()

    _made: tuple[T, ...] = ()

    def _open(self) -> T:
        made = self.opener()
        # A new tuple: the class's own, empty one is shared by all harnesses.
        self._made += (made,)
        return made

    @abstractmethod
    def _close_one(self, made: T) -> None: ...
