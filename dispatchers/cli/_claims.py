"""`dispatchers claims`: the idempotency keys that stores remember."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from typing import Any

from dispatchers._config.api import state
from dispatchers._errors import ConfigurationError
from dispatchers._models.claim import ClaimInfo, IdempotencyStore
from dispatchers._models.redaction import shown as redacted
from dispatchers._models.redaction import without_passwords
from dispatchers._runtime.importing import cause
from dispatchers._stores.loading import idempotency, listed_claims

from ._arguments import add_command, whole
from ._exit import Exit
from ._places import dispatchers
from ._screen import Screen
from ._surroundings import selected_target

__all__ = ["add"]

TEXT = """
List the idempotency keys that stores remember: done or running, and until when.

The stores of every dispatcher of the target and of [endpoint] are asked, those that can list. A key
begins with the task's name.
"""

PAGE = 100
"""Keys that a table shows unless told otherwise."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "claims", run, TEXT, as_json=True)
    parser.add_argument(
        "--key", metavar="TEXT", default="", help="only keys with this text in them"
    )
    parser.add_argument(
        "--limit", metavar="N", type=whole, help="at most so many; default: 100, with --json all"
    )


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """List the claims of every store."""
    selected_target(args.target)
    specs = _specs()
    if not specs:
        raise ConfigurationError(
            'no idempotency store is configured: set idempotency = "sqlite:PATH"'
        )
    # A generator: a store may hold millions, of which a page is shown.
    found = (each for spec in specs for each in _claims(spec, shown) if args.key in each[1].key)
    limit = args.limit or (None if args.json else PAGE)
    kept = islice(found, limit)
    if args.json:
        shown.json_list(_facts(spec, claim) for spec, claim in kept)
    elif rows := [_row(spec, claim) for spec, claim in kept]:
        shown.table(("key", "state", "until", "store"), rows)
    else:
        shown.note("no claims")
    if limit is not None and next(found, None) is not None:
        shown.note(f"there are more than these {limit}: --limit N shows more")
    return Exit.OK


def _specs() -> list[str]:
    """Return the names of the configured stores, each once."""
    found = [each.options.idempotency for each in dispatchers().values()]
    configuration = state.snapshot.configuration
    if configuration.settings.endpoint:
        found.append(configuration.endpoint().idempotency)
    # Without repetitions: several dispatchers usually share one store.
    return list(dict.fromkeys(spec for spec in found if spec is not None))


def _claims(spec: str, shown: Screen) -> Iterator[tuple[str, ClaimInfo]]:
    try:
        store: IdempotencyStore = idempotency(spec)
        claims = listed_claims(store)
        if claims is None:
            shown.note(f"{redacted(spec)}: this store cannot list its claims")
            return
        for claim in claims:
            yield redacted(spec), claim
    except ConfigurationError:
        raise
    except Exception as exc:
        text = f"the claims of {spec!r} could not be asked: {cause(exc)}"
        raise ConfigurationError(without_passwords(text, spec)) from exc


def _row(spec: str, claim: ClaimInfo) -> tuple[str, ...]:
    until = "-" if claim.until is None else claim.until.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return claim.key, claim.state, until, spec


def _facts(spec: str, claim: ClaimInfo) -> dict[str, object]:
    until = None if claim.until is None else claim.until.isoformat()
    return {**claim._asdict(), "until": until, "store": spec}
