"""Rules of the lint: calls that a replay would carry out anew, and their cures."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["MUTATORS", "ORDERED", "ORDER_FREE", "Rule", "rule_for"]


class Rule(NamedTuple):
    """A problem of some calls, and its cure."""

    names: tuple[str, ...]
    """Dotted names; one that ends with a dot stands for everything below it."""
    problem: str
    cure: str
    only_bare: bool = False
    """Only calls without arguments: `time.gmtime()`, but not `time.gmtime(0)`."""

    def matches(self, name: str) -> bool:
        """Tell whether a dotted name is one of its names."""
        return any(name == own or (own[-1] == "." and name.startswith(own)) for own in self.names)


ANOTHER = "gives another result at each replay"
AGAIN = "is done again at each replay"
OUTSIDE = "do it in a step, or here by `await local(fn, ...)`"

RULES = (
    Rule(("time.sleep",), "blocks the worker at each replay", "await asyncio.sleep(...)"),
    Rule(
        (
            *(f"time.{name}{unit}" for name in ("time", "monotonic") for unit in ("", "_ns")),
            *(
                f"time.{name}{unit}"
                for name in ("perf_counter", "process_time")
                for unit in ("", "_ns")
            ),
            *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")),
            "datetime.date.today",
            *(f"django.utils.timezone.{name}" for name in ("now", "localdate", "localtime")),
        ),
        ANOTHER,
        "use now() of dispatchers.workflows",
    ),
    Rule(
        tuple(f"time.{name}" for name in ("gmtime", "localtime", "ctime", "asctime")),
        ANOTHER,
        "give it the seconds of now().timestamp(), now being that of dispatchers.workflows",
        only_bare=True,
    ),
    Rule(
        ("random.Random",),
        "draws another seed at each replay",
        "give it a seed, or use random() of dispatchers.workflows",
        only_bare=True,
    ),
    Rule(
        ("random.", "numpy.random."),
        ANOTHER,
        "use random() of dispatchers.workflows, or random.Random(random()) with it",
    ),
    Rule(
        tuple(f"uuid.uuid{version}" for version in (1, 4, 6, 7, 8)),
        ANOTHER,
        "use uuid4() of dispatchers.workflows",
    ),
    Rule(
        ("secrets.", *(f"{module}.urandom" for module in ("os", "posix", "nt"))),
        ANOTHER,
        "draw it in a step, or here by `await local(fn, ...)`",
    ),
    Rule(
        ("builtins.hash", "builtins.id"),
        "differs between processes",
        "use hashlib, or a key of your own",
    ),
    Rule(("asyncio.to_thread", "asyncio.threads.to_thread"), "is not durable", OUTSIDE),
    Rule(
        ("asyncio.as_completed", "asyncio.tasks.as_completed"),
        "begins coroutines in another order at each replay",
        "use asyncio.wait, or asyncio.gather",
    ),
    Rule(
        (
            *("builtins.open", "builtins.input", "io.open", "_io.open"),
            *("requests.", "httpx.", "urllib.request.", "urllib3.", "aiohttp.", "http.client."),
            *("smtplib.", "ftplib.", "socket.", "_socket.", "asyncio.open_connection"),
        ),
        AGAIN,
        OUTSIDE,
    ),
    Rule(
        (
            *("subprocess.", "os.system", "posix.system", "asyncio.subprocess."),
            *("threading.", "_thread.", "multiprocessing.", "concurrent.futures."),
            *("asyncio.run", "asyncio.new_event_loop"),
        ),
        "is not durable, and is begun again at each replay",
        OUTSIDE,
    ),
)


def rule_for(names: Iterable[str], call: ast.Call) -> Rule | None:
    """Return the rule that a call of one of these names breaks."""
    known = [name for name in names if name]
    rule = next((rule for rule in RULES if any(map(rule.matches, known))), None)
    if rule is not None and rule.only_bare and (call.args or call.keywords):
        return None
    return rule


MUTATORS = frozenset(
    {
        *("add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert"),
        *("pop", "popitem", "popleft", "remove", "reverse", "setdefault", "sort", "update"),
    }
)
"""Methods that change a list, a dictionary, a set or a deque."""

ORDERED = frozenset({"list", "tuple", "enumerate", "iter", "map", "filter", "zip"})
"""Builtins that keep the order in which they are given something."""

ORDER_FREE = frozenset({"sorted", "sum", "min", "max", "any", "all", "set", "frozenset", "len"})
"""Builtins whose result does not depend on the order."""
