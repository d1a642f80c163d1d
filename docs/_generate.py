"""Write the parts of the documentation that are facts of the code: `python docs/_generate.py`.

Each stands between `<!-- name: begin -->` and `<!-- name: end -->`; a test compares them.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dispatchers import (
    Action,
    BackendOptions,
    BaseDispatcher,
    Capabilities,
    DeadLetterStore,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    Outcome,
    Reason,
    Sent,
    WorkerOptions,
)
from dispatchers._config.json_schema import class_body
from dispatchers._config.references import BUILT_IN
from dispatchers._config.registry import load_backend
from dispatchers._config.settings import Settings, TaskOverride
from dispatchers._errors import RETRYABLE
from dispatchers._models.options import BreakerSettings
from dispatchers._models.response import OK
from dispatchers.cli._exit import Exit
from dispatchers.cli._main import _parser
from dispatchers.http import PATH, Endpoint, EndpointSettings, OidcSettings, SignatureSettings
from dispatchers.http._responses import POLICIES, Policy, answer_to
from dispatchers.testing import (
    ABILITIES,
    DispatcherConformance,
    FaultProxy,
    Harness,
    Journal,
    RecordingDispatcher,
    RecordingOptions,
)
from dispatchers.testing.endpoint import ATTACKS, Attack, Issuer, Scene

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- ([\w-]+): begin -->\n).*?(<!-- \2: end -->)", re.DOTALL)
RULE = re.compile(r"C\d+")


def pages() -> list[Path]:
    """Every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def regenerated(text: str) -> str:
    """A page with everything between its markers written anew.

    Raises:
        KeyError: A marker names nothing that is generated.
    """
    return BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def markers(text: str) -> list[str]:
    """The names of what is generated into a page."""
    return [found[2] for found in BLOCK.finditer(text)]


def main() -> int:
    """Write every page; with `--check`, say which are not up to date instead."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--check", action="store_true")
    checking = parser.parse_args().check
    stale = [page for page in pages() if regenerated(page.read_text()) != page.read_text()]
    for page in stale:
        print(page.relative_to(ROOT))
        if not checking:
            page.write_text(regenerated(page.read_text()))
    return 1 if checking and stale else 0


# How tables are written.


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of Markdown under their columns."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_flat(cell) for cell in line)} |" for line in lines)


def _flat(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: object) -> str:
    """Text as code."""
    return f"`{text}`"


def docs_of(enum: type[Enum]) -> dict[str, str]:
    """What stands under each member of an enum, by value."""
    found = {str(enum[name].value): text for name, text in _docs_in(enum)}
    assert len(found) == len(enum)
    return found


def docs_of_fields(model: type[BaseModel]) -> dict[str, str]:
    """What stands under each field of a model, by name."""
    bases = [
        base
        for base in reversed(model.__mro__)
        if issubclass(base, BaseModel) and base is not BaseModel
    ]
    return {name: text for base in bases for name, text in _docs_in(base)}


def _docs_in(cls: type) -> Iterator[tuple[str, str]]:
    """The names in the body of a class, and the texts right below them."""
    for before, after in pairwise(class_body(cls)):
        target = _target(before)
        match after:
            case ast.Expr(value=ast.Constant(value=str() as text)) if target:
                yield target, text


def _target(statement: ast.stmt) -> str | None:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return None


# What backends can do.

WORDS: Mapping[str, str] = {
    "runs_here": "runs in the call",
    "durable": "durable",
    "confirmed": "confirmed",
    "delay": "delay",
    "priority": "priority",
    "expires": "expiry",
    "time_limit": "time limit",
    "kills": "kills at the time limit",
    "retries": "retries",
    "deduplicate": "deduplicates",
    "queues": "queues",
    "batch": "one round trip for many",
    "worker": "`dispatchers worker`",
    "dead_letters": "dead letters",
    "stats": "figures by queue",
    "max_delay": "longest delay",
    "max_size": "largest envelope",
}
"""Every capability, in words."""
ADAPTERS = (
    "celery",
    "rq",
    "django_rq",
    "django_q",
    "django_tasks",
    "dramatiq",
    "cloud_tasks",
    "sqs",
)
"""Those that are bundled and finished."""
OF_DJANGO = ("django_rq", "django_q", "django_tasks")
"""Those whose settings are Django's, of which there are none here."""
UP_TO_ITS_BACKEND = dict.fromkeys(("delay", "priority", "durable", "dead_letters"), False)
"""What `django_tasks` can where the backend of Django's can, or where it is told so."""
OF_OTHERS = ("failover", "spill", "outbox")
"""Those that can do what the dispatchers behind them can."""
NEEDED: Mapping[str, Mapping[str, Any]] = {
    "sqlite": {"path": "work.sqlite3"},
    "celery": {"url": "amqp://localhost"},
    "rq": {"url": "redis://localhost"},
    "dramatiq": {"url": "amqp://localhost"},
    "cloud_tasks": {
        "project": "shop",
        "location": "europe-west1",
        "queue": "default",
        "worker_url": "https://worker.shop.example",
        "service_account": "tasks@shop.iam.gserviceaccount.com",
    },
    "sqs": {"queue": "shop"},
}
"""Options that a backend cannot be built without."""


def _built(name: str) -> BaseDispatcher:
    kind = load_backend(name)
    if name in OF_DJANGO:
        built = kind.__new__(kind)  # its capabilities are the class's
        if name == "django_tasks":
            built.capabilities = kind.capabilities.model_copy(update=UP_TO_ITS_BACKEND)
        return built
    return kind(**NEEDED.get(name, {}))


def capabilities() -> str:
    """What each bundled backend can do."""
    built = {n: _built(n) for n in (*BUILT_IN, *ADAPTERS) if n not in OF_OTHERS}
    rows = [
        (words, *(_ability(each, field) for each in built.values()))
        for field, words in WORDS.items()
    ]
    return table(["", *map(code, built)], [row for row in rows if any(row[1:])])


def _ability(dispatcher: BaseDispatcher, field: str) -> str:
    """`option` where the class can and the instance by default does not."""
    exactly = getattr(dispatcher.capabilities, field)
    if not isinstance(exactly, bool):
        return "" if exactly is None else _amount(exactly)
    return "yes" if exactly else "option" * getattr(type(dispatcher).capabilities, field)


def _amount(value: timedelta | int) -> str:
    if isinstance(value, timedelta):
        return f"{value.days} days" if value.days else f"{value.seconds // 60} minutes"
    return f"{round(value / 2**20)} MiB"


def capability_fields() -> str:
    """What each capability means."""
    assert set(WORDS) == set(Capabilities.model_fields)
    return table(["capability", "what it means"], _described(Capabilities))


def _described(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    docs = docs_of_fields(model)
    for name in model.model_fields:
        yield code(name), docs[name]


# The contract.


def statuses() -> str:
    """Every status."""
    said = docs_of(DispatchStatus)
    return table(
        ["status", "`ok`", "what is known"],
        [
            (code(each.value), "yes" if each in OK else "no", said[each.value])
            for each in DispatchStatus
        ],
    )


def categories() -> str:
    """Every category of failure."""
    said = docs_of(ErrorCategory)
    return table(
        ["category", "what happened", "`retryable` when rejected"],
        [
            (code(each.value), said[each.value], "yes" if each in RETRYABLE else "no")
            for each in ErrorCategory
        ],
    )


def cases(rule: str) -> str:
    """The conformance cases of one rule."""
    found = []
    for name, member in inspect.getmembers(DispatcherConformance, inspect.isfunction):
        rules, _, fact = (member.__doc__ or "").partition(":")
        if name.startswith("test_") and rule in RULE.findall(rules):
            sentence = " ".join(fact.split("\n\n")[0].split())
            found.append((_line(member), f"- {code(name)}: {sentence}"))
    assert found, rule
    return "\n".join(line for _, line in sorted(found))


def _line(member: Callable[..., Any]) -> tuple[str, int]:
    return member.__module__, inspect.unwrap(member).__code__.co_firstlineno


def outcomes() -> str:
    """What an adapter does with a delivery."""
    return table(["action", "what the adapter does"], _pairs(Action))


def reasons() -> str:
    """Why a run ended as it did."""
    return table(["reason", "what happened"], _pairs(Reason))


def _pairs(enum: type[Enum]) -> list[tuple[str, str]]:
    return [(code(value), said) for value, said in docs_of(enum).items()]


# Configuration.


def options(model: type[BaseModel], beyond: type[BaseModel] | None = None) -> str:
    """Every option of a model, or those that it has beyond another one's."""
    known = {} if beyond is None else beyond.model_fields
    docs = docs_of_fields(model)
    rows = [
        (code(name), _default(field), _takes(field), docs[name])
        for name, field in model.model_fields.items()
        if name not in known or field.default != known[name].default
    ]
    return table(["option", "default", "takes", "effect"], rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}):
        return ""
    if isinstance(value, BaseModel):
        return "on"
    return code(json.dumps(value))


NAMES: Mapping[str, str] = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "timedelta": "seconds, or `PT5M`",
    "Names": "list of names",
    "BreakerSettings": "table",
    "Backoff": "table",
    "TaskOverride": "table",
    "OidcSettings": "table",
    "SignatureSettings": "table",
    "Any": "table",
    "object": "text",
}


def _takes(field: FieldInfo) -> str:
    return f"{_kind(field.annotation)}{_bounds([*field.metadata, *_inner(field.annotation)])}"


def _inner(annotation: Any) -> Iterator[Any]:
    """What stands beside the types within an annotation."""
    for each in getattr(annotation, "__metadata__", ()):
        yield from each.metadata if isinstance(each, FieldInfo) else ()
    for argument in getattr(annotation, "__args__", ()):
        yield from _inner(argument)


def _kind(annotation: Any) -> str:
    name = getattr(annotation, "__name__", str(annotation))
    arguments = getattr(annotation, "__args__", ())
    if name == "Literal":
        return " or ".join(code(json.dumps(each)) for each in arguments)
    if name == "tuple":
        return "list of names"
    if name == "dict":
        return "tables by name"
    if arguments:
        parts = [_kind(each) for each in arguments if each is not type(None)]
        return " or ".join(dict.fromkeys(parts))
    return NAMES[name]


SIGNS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def _bounds(metadata: Iterable[Any]) -> str:
    found = [
        f"{sign} {_number(getattr(each, name))}"
        for each in metadata
        for name, sign in SIGNS
        if getattr(each, name, None) is not None
    ]
    return f", {' and '.join(found)}" if found else ""


def _number(value: Any) -> str:
    return "0" if value == timedelta(0) else f"{value:_}".replace("_", " ")


# The command line.


def commands() -> str:
    """Every command."""
    (actions,) = (each for each in _parser()._actions if isinstance(each.choices, dict))
    return table(
        ["command", "what it does"],
        [(code(f"dispatchers {each.dest}"), str(each.help)) for each in actions._choices_actions],  # type: ignore[attr-defined]
    )


def exits() -> str:
    """Every exit code."""
    said = docs_of(Exit)
    return table(["code", "meaning"], [(code(number), text) for number, text in said.items()])


def abilities() -> str:
    """What a harness is asked to do."""
    return table(
        ["name", "the harness is asked to"], [(code(n), said) for n, said in ABILITIES.items()]
    )


# For authors of adapters.

SUITES_OWN = ("dispatcher", "dispatcher_at", "keep", "end", "has", "need")
"""What the suites call on a harness, and no author writes."""


def harness() -> str:
    """What a harness is made of: what has to be written first, its settings last."""
    methods = [name for name in vars(Harness) if name[0] != "_" and name not in SUITES_OWN]
    said = dict(_docs_in(Harness))
    rows = [
        (code(name), said[name] if name in said else _first(Harness, name))
        for name in sorted(methods, key=lambda name: name in said)
    ]
    return table(["name", "what it is or does"], rows)


def request() -> str:
    """What a request holds, and what is derived from it."""
    derived = [name for name, each in vars(DispatchRequest).items() if isinstance(each, property)]
    rows = [*_described(DispatchRequest), *((code(n), _first(DispatchRequest, n)) for n in derived)]
    return table(["field", "what it holds"], rows)


def answer() -> str:
    """What an adapter answers."""
    said = dict(_docs_in(Sent))
    return table(
        ["field", "default", "what it says"],
        [(code(n), _answer_default(n), said[n]) for n in Sent._fields],
    )


def _answer_default(name: str) -> str:
    value = Sent._field_defaults[name]
    return code(value.value if isinstance(value, Enum) else value)


def letter_store() -> str:
    """What a store of dead letters has."""
    names = [n for n, each in vars(DeadLetterStore).items() if _is_order(n, each)]
    rows = [(code(_call(DeadLetterStore, n)), _first(DeadLetterStore, n)) for n in names]
    return table(["method", "what it does"], rows)


def _call(cls: type, name: str) -> str:
    """A method as it is called, with its types."""
    found = inspect.signature(getattr(cls, name))
    _, *taken = found.parameters.values()
    shown = str(found.replace(parameters=taken))
    return f"{name}{shown}".replace("'", "")  # they are written as texts


# The endpoint.


def answers() -> str:
    """What each transport is answered, by what became of the work."""
    rows = [
        (code(reason.value), said, *(_status(action, reason, each) for each in POLICIES.values()))
        for action, reasons_of in ENDINGS.items()
        for reason in reasons_of
        if (said := docs_of(Reason)[reason.value])
    ]
    return table(["outcome", "what happened", *map(code, POLICIES)], rows)


ENDINGS: Mapping[Action, Sequence[Reason]] = {
    Action.DONE: (Reason.SUCCEEDED, Reason.DISCARDED, Reason.DUPLICATE, Reason.EXPIRED),
    Action.RETRY: (Reason.FAILED,),
    Action.DEAD: (
        Reason.PERMANENT,
        Reason.EXHAUSTED,
        Reason.NO_ENVELOPE,
        Reason.TOO_MANY_DELIVERIES,
        Reason.CONFLICT,
    ),
    Action.RETURN: (
        Reason.UNKNOWN_TASK,
        Reason.NEWER_ENVELOPE,
        Reason.INVALID_ARGUMENTS,
        Reason.IN_FLIGHT,
        Reason.STORE_UNAVAILABLE,
        Reason.NO_JOURNAL,
        Reason.LEASE_LOST,
    ),
}
"""How a delivery may end."""


def _status(action: Action, reason: Reason, policy: Policy) -> str:
    return str(answer_to(Outcome(action=action, reason=reason), policy).status)


@cache
def attacks() -> str:
    """Each attack and the status it gets, tried now."""
    return table(["attack", "status"], [(each.name, str(_attacked(each))) for each in ATTACKS])


def _attacked(attack: Attack) -> int:
    """The status that an attack gets; it must have run nothing."""
    with Issuer() as issuer, TemporaryDirectory() as folder:
        scene = Scene(issuer, Journal(Path(folder, "journal")))
        endpoint = Endpoint(scene.settings(**attack.settings(scene)))
        if attack.warm:
            endpoint.handle("POST", PATH, scene.headers(issuer.token()), b"{}")
        headers, body = attack.make(scene)
        answer = endpoint.handle("POST", PATH, headers, body)
        assert scene.journal.texts == []
        return answer.status


RECORDER = (
    *("dispatched", "requests", "responses", "of", "assert_one", "assert_many", "assert_none"),
    *("fail_next", "fail_when", "down", "up", "advance", "due", "run_due", "run_next", "dead"),
    *("clear",),
)
"""What a test asks of a recorder, in the order of the page."""


def recorder() -> str:
    """What a test asks of a recorder."""
    return _members(RecordingDispatcher, RECORDER)


def proxy() -> str:
    """What a fault proxy can be told to do."""
    return _members(FaultProxy, [n for n, each in vars(FaultProxy).items() if _is_order(n, each)])


def _is_order(name: str, member: object) -> bool:
    return inspect.isfunction(member) and not name.startswith("_") and name != "close"


def _members(cls: type, names: Iterable[str]) -> str:
    return table(["name", "what it is or does"], [(code(n), _first(cls, n)) for n in names])


def _first(cls: type, name: str) -> str:
    """The first paragraph of what stands under a member."""
    return (inspect.getdoc(getattr(cls, name)) or "").split("\n\n")[0]


def api() -> str:
    """The reference of the public names."""
    sys.path.append(str(ROOT / "docs"))
    from _api import reference

    return reference(_texts_in)


def _texts_in(cls: type) -> Mapping[str, str]:
    if issubclass(cls, BaseModel):
        return docs_of_fields(cls)
    assert issubclass(cls, Enum)
    texts = dict(_docs_in(cls))
    return {str(member.value): texts.get(name, "") for name, member in cls.__members__.items()}


TABLES: dict[str, Callable[[], str]] = {
    "api": api,
    "capabilities": capabilities,
    "capability-fields": capability_fields,
    "statuses": statuses,
    "categories": categories,
    "outcomes": outcomes,
    "reasons": reasons,
    "settings": lambda: options(Settings),
    "task-overrides": lambda: options(TaskOverride),
    "options": lambda: options(BackendOptions),
    "breaker": lambda: options(BreakerSettings),
    "options-recording": lambda: options(RecordingOptions, BackendOptions),
    "worker-options": lambda: options(WorkerOptions),
    "commands": commands,
    "exits": exits,
    "abilities": abilities,
    "harness": harness,
    "request": request,
    "sent": answer,
    "letter-store": letter_store,
    "recorder": recorder,
    "proxy": proxy,
    "endpoint": lambda: options(EndpointSettings),
    "endpoint-oidc": lambda: options(OidcSettings),
    "endpoint-signatures": lambda: options(SignatureSettings),
    "answers": answers,
    "attacks": attacks,
    **{
        f"options-{name}": partial(options, load_backend(name).Options, BackendOptions)
        for name in BUILT_IN
        if load_backend(name).Options is not BackendOptions
    },
    **{f"cases-c{n}": partial(cases, f"C{n}") for n in range(1, 13)},
}
"""What is generated, by its marker."""


if __name__ == "__main__":
    raise SystemExit(main())
