"""`failover`: hand work to the first of several dispatchers that certainly takes it.

Only what was certainly not handed over moves on: after `unknown` no other member gets the request.
All members share one deadline, and one whose breaker is open costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field

from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.batch import is_hurried
from dispatchers._dispatch.protocol import Item
from dispatchers._dispatch.worker_protocol import Worker, WorkerOptions
from dispatchers._errors import ConfigurationError
from dispatchers._models.base import build
from dispatchers._models.capabilities import OPTIONS, Capabilities
from dispatchers._models.fields import as_tuple
from dispatchers._models.options import BackendOptions
from dispatchers._models.stats import Stats
from dispatchers.backends._figures_behind import ask, summed, told
from dispatchers.backends._members_worker import MembersWorker
from dispatchers.backends._passage import INCAPABLE, Member, Passage
from dispatchers.backends._passing import (
    MOVES,
    Categories,
    PassingDispatcher,
    Unwaived,
    members_named,
)

__all__ = ["FailoverDispatcher", "FailoverOptions"]


def _as_members(value: object) -> object:
    return (value,) if isinstance(value, BaseDispatcher) else as_tuple(value)


def _members(given: tuple[object, ...]) -> tuple[object, ...]:
    wrong = [each for each in given if not isinstance(each, str | BaseDispatcher)]
    if wrong:
        raise ValueError(f"takes aliases, not {type(wrong[0]).__name__}")
    names = [
        each if isinstance(each, str) else cast("BaseDispatcher", each).alias for each in given
    ]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"names {twice[0]!r} twice")
    return given


class FailoverOptions(BackendOptions):
    """Options of `failover`; what workers need stands at the members."""

    to: Annotated[tuple[object, ...], BeforeValidator(_as_members), AfterValidator(_members)] = (
        Field(min_length=1)
    )
    """The aliases of the members, in the order in which they are tried: `["broker", "backup"]`; in
    code the dispatchers themselves, too."""
    on: Categories = MOVES
    """The categories of a rejection after which the next member is tried."""
    unknown: Literal["stop", "next"] = "stop"
    """`next` tries the next member after `unknown`, too: only where the workers of all members ask
    one shared idempotency store."""
    waive: Unwaived = ()
    """Nothing: it stands at the members."""
    deadline: float = Field(default=2.0, gt=0, le=3600)
    """Seconds for all members together; by default the longest deadline of a member."""


class FailoverDispatcher(PassingDispatcher):
    """Hands over to its members in order, under one deadline."""

    name = "failover"
    contract = 1
    Options = FailoverOptions
    options: FailoverOptions

    def __init__(
        self,
        options: FailoverOptions | None = None,
        *,
        alias: str | None = None,
        **settings: object,
    ) -> None:
        given = cast("FailoverOptions", self._validated(options, settings))
        self.members = members_named(given.to, alias or self.name)
        """The dispatchers in the order in which they are tried. Not owned, never closed."""
        # Before the base class's constructor, which reads them.
        self.capabilities = _together(self.members)
        super().__init__(_with_deadline(given, self.members, alias or self.name), alias=alias)
        self._ways = Member.each_of(self.members)
        self._moves = frozenset(self.options.on) | INCAPABLE
        if self.options.unknown == "next":
            _refuse_repeats(self.alias, self.members)

    @classmethod
    def stands_on(cls, options: BackendOptions) -> tuple[str, ...]:
        """Return the aliases of the members."""
        given = cast("FailoverOptions", options).to
        return tuple(each for each in given if isinstance(each, str))

    def _passage(self, items: Sequence[Item], timeout: float) -> Passage:
        return Passage(
            self._ways,
            self._moves,
            [request for request, _ in items],
            timeout,
            after_unknown=self.options.unknown == "next",
            queue=self.options.queue,
        )

    # The rest of a backend.

    def _probe(self, *, timeout: float) -> Sequence[str]:
        """Reach the members; raise if none can be reached, warn of those that cannot."""
        warnings: list[str] = []
        for member in self.members:
            try:
                member.check(contact=True)
            except Exception as exc:  # noqa: BLE001 - what others raise becomes a warning
                warnings.append(str(exc))
        if len(warnings) == len(self.members):
            raise ConfigurationError("; ".join(warnings))
        return warnings

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        """Add up what the members count."""
        found, failed = ask(self.members, timeout)
        return told(summed(self.members, found), failed)

    @property
    def run_by(self) -> str | None:
        """The programs that run the members' work, where none has a worker of ours."""
        found = [] if self.capabilities.worker else [each.run_by for each in self.members]
        return ", and ".join(dict.fromkeys(filter(None, found))) or None

    def _worker(self, options: WorkerOptions) -> Worker:
        able = [each for each in self.members if each.capabilities.worker]
        if not able:
            return super()._worker(options)
        return able[0]._worker(options) if len(able) == 1 else MembersWorker(able, options)


def _with_deadline(
    options: FailoverOptions, members: Sequence[BaseDispatcher], alias: str
) -> FailoverOptions:
    """Return the options with the longest deadline of the members, where none is given.

    Raises:
        ConfigurationError: It is so short that members which are late would never be left alone.
    """
    if "deadline" not in options.model_fields_set:
        longest = max(member.options.deadline for member in members)
        return build(FailoverOptions, {**options.__dict__, "deadline": longest})
    for each in members:
        if is_hurried(options.deadline, each.options.deadline):
            raise ConfigurationError(
                f"dispatcher {alias!r}: deadline = {options.deadline:g} is less than half of the "
                f"{each.options.deadline:g} s of {each.alias!r}, whose breaker would never count "
                f"that it is late: give {each.alias!r} deadline = {options.deadline:g} too"
            )
    return options


def _together(members: Sequence[BaseDispatcher]) -> Capabilities:
    """Return what one of the members can, and what all of them promise."""
    each = [member.capabilities for member in members]
    some = {name: any(_takes(m, name) for m in members) for name in OPTIONS}
    some |= {name: any(getattr(c, name) for c in each) for name in ("queues", "worker", "stats")}
    every = ("confirmed", "durable", "retries", "kills", "batch")
    delays = [c.max_delay for c in each if c.delay]
    sizes = [c.max_size for c in each]
    return Capabilities(
        **some,
        **{name: all(getattr(c, name) for c in each) for name in every},
        max_delay=None if None in delays or not delays else max(filter(None, delays)),
        max_size=None if None in sizes else max(filter(None, sizes)),
    )


def _takes(member: BaseDispatcher, option: str) -> bool:
    return member.capabilities.supports(option) or option in member.options.waive


def _refuse_repeats(alias: str, members: Sequence[BaseDispatcher]) -> None:
    """Refuse `unknown = "next"` where work could run twice.

    Raises:
        ConfigurationError: The workers of the members share no idempotency store.
    """
    stores = {str(each.options.idempotency) for each in members}
    if len(stores) != 1 or stores & {"None", "memory"}:
        raise ConfigurationError(
            f'dispatcher {alias!r}: unknown = "next" may hand work over twice, and its members '
            f"share no idempotency store that would notice: give each of "
            f"{', '.join(repr(m.alias) for m in members)} the same `idempotency`"
        )
