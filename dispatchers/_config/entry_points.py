"""The backends that installed distributions bring."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["GROUP", "Claim", "entry_points"]

GROUP = "dispatchers.backends"


class Claim(NamedTuple):
    """A distribution's claim to a backend's name."""

    owner: str
    """A distribution and its version, `dispatchers`, or `code`."""
    reference: str
    """`module:Class`."""

    def __str__(self) -> str:
        return f"{self.owner} ({self.reference})"

    @property
    def distribution(self) -> str:
        """The owner without its version."""
        return self.owner.partition(" ")[0]


def entry_points() -> list[tuple[str, Claim]]:
    """Return the entry points of the group; broken metadata gives none.

    The text is searched before it is parsed, which is most of the time that a scan takes.
    """
    from importlib import metadata

    owners = {name for each in metadata.distributions() if (name := _owner_name(each))}
    return [found for name in sorted(owners) for found in _points_of(name)]


def _owner_name(distribution: object) -> str | None:
    try:
        text = distribution.read_text("entry_points.txt")  # type: ignore[attr-defined]
        return str(distribution.name) if text and GROUP in text else None  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - a broken installation of another project
        return None


def _points_of(name: str) -> list[tuple[str, Claim]]:
    """Return the entry points of the first distribution of a name."""
    from importlib import metadata

    try:
        first = metadata.distribution(name)
        owner = f"{first.name} {first.version}"
        points = [point for point in first.entry_points if point.group == GROUP]
    except Exception:  # noqa: BLE001 - a broken installation of another project
        return []
    return [(point.name, Claim(owner, point.value.replace(" ", ""))) for point in points]
