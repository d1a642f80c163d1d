"""What `import dispatchers` gives, and what it does not do."""

from __future__ import annotations

import ast
import enum
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dispatchers
from dispatchers import hooks, http, implementation

ASKED_FOR = [
    "task",
    "declare",
    "Task",
    "Backoff",
    "configure",
    "override",
    "get_dispatcher",
    "register",
    "classify",
    "check",
    "close_all",
    "DispatchRequest",
    "DispatchResponse",
    "DispatchResponses",
    "DispatchStatus",
    "DispatchFailure",
    "DispatchError",
    "DispatchUnknownError",
    "ErrorCategory",
    "Capabilities",
    "Dispatcher",
    "BaseDispatcher",
    "BaseAsyncDispatcher",
    "BackendOptions",
    "Sent",
    "Outcome",
    "run_envelope",
    "Retry",
    "Discard",
    "current_run",
]

LOOK = """
import sys
before = set(sys.modules)
import dispatchers; dispatchers.task
print(*sorted(set(sys.modules) - before), sep="\\n")
"""

LATER = (
    "dispatchers.backends",
    "dispatchers.cli",
    "dispatchers.demo",
    "dispatchers.http",
    "dispatchers.sqlite",
    "dispatchers.testing",
    "_pytest",
    "argparse",
    "pytest",
    "sqlite3",
    "tomllib",
    "unittest",
)
"""What costs time, or belongs to others, and is imported once there is a call for it."""

ALLOWED = {
    "dispatchers",
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "typing_extensions",
    "typing_inspection",
}
"""The core's dependencies, and theirs."""


def in_a_fresh_interpreter(source: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *flags, "-c", source]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


@pytest.fixture(scope="module")
def imported() -> list[str]:
    """The modules that `import dispatchers` loads."""
    return in_a_fresh_interpreter(LOOK, "-W", "error").stdout.split()


def test_the_import_prints_nothing():
    """Nothing prints, nothing warns."""
    done = in_a_fresh_interpreter("import dispatchers", "-W", "error")

    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("module", LATER)
def test_the_import_loads_no_backend_framework_or_tool(imported, module):
    """They are loaded by whoever asks for them."""
    assert [name for name in imported if name == module or name.startswith(f"{module}.")] == []


def test_the_import_needs_the_core_s_dependencies_only(imported):
    """Pydantic and typing-extensions."""
    foreign = {name.split(".")[0] for name in imported} - sys.stdlib_module_names - ALLOWED
    # What the machine itself adds: sysconfig's own data.
    foreign = {name for name in foreign if not name.startswith("_sysconfigdata")}

    assert foreign == set()


def test_the_import_starts_no_thread_and_opens_no_file():
    """Nothing connects, nothing waits."""
    source = (
        "import threading, dispatchers; print(threading.active_count(), "
        "len(dispatchers.catalogue.all()))"
    )

    assert in_a_fresh_interpreter(source).stdout.split() == ["1", "0"]


def test_the_import_reads_no_configuration():
    """A broken one is told when it is used, with the place of the mistake."""
    source = "import os; os.environ['DISPATCHERS_TARGTS'] = 'x'; import dispatchers"

    assert in_a_fresh_interpreter(source).stderr == ""


@pytest.mark.parametrize(
    "module", [dispatchers, hooks, http, implementation], ids=lambda m: m.__name__
)
def test_the_list_of_names_is_sorted_and_true(module):
    """`__all__` is what there is."""
    assert list(module.__all__) == sorted(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_every_name_that_was_asked_for_is_there():
    """Importable from `dispatchers`."""
    assert set(ASKED_FOR) <= set(dispatchers.__all__)


def test_nothing_else_is_public():
    """A module without an underscore is one that users import."""
    given = {name for name in vars(dispatchers) if not name.startswith(("_", "@py"))}

    modules = {name for name in given if inspect.ismodule(getattr(dispatchers, name))}

    assert given - modules == set(dispatchers.__all__)
    rooms = {
        "backends",
        "delivery",
        "forwarding",
        "frameworks",
        "held",
        "hooks",
        "http",
        "implementation",
        "moving",
        "native",
        "net",
    }
    rooms |= {"journals", "outbox", "rabbitmq", "redis", "sqlite", "stores", "worker", "workflows"}
    assert modules <= rooms | {"cli", "demo", "testing"}


def public() -> list[str]:
    return [
        f"{room.__name__}.{name}"
        for room in (dispatchers, hooks, http)
        for name in room.__all__
        if not name.isupper()
    ]


@pytest.mark.parametrize("name", public())
def test_every_public_name_says_what_it_is(name):
    """One sentence that ends in a stop, and its methods and properties too."""
    module, _, attribute = name.rpartition(".")
    found: Any = getattr(sys.modules[module], attribute)
    text = inspect.getdoc(found) or ""

    assert text.split("\n\n")[0].rstrip().endswith((".", ":", "::")), text
    assert undocumented(found) == []


def undocumented(found: Any) -> list[str]:
    """The public methods and properties of a class of ours that say nothing."""
    if not inspect.isclass(found):
        return []
    ours = {
        name: member
        for name, member in vars(found).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    }
    return [name for name, member in ours.items() if not inspect.getdoc(member)]


@pytest.mark.parametrize("name", dispatchers.__all__)
def test_exceptions_and_only_they_are_called_errors(name):
    """Exceptions end in `Error`, but for the two that a handler raises to ask for something."""
    found = getattr(dispatchers, name)
    is_exception = inspect.isclass(found) and issubclass(found, Exception)

    assert is_exception == (name.endswith("Error") or name in ("Retry", "Discard"))


def test_enum_values_are_lower_case_words():
    """`"accepted"`, `"circuit_open"`: they stand in JSON and in people's code."""
    enums = [
        found
        for name in dispatchers.__all__
        if isinstance(found := getattr(dispatchers, name), enum.EnumMeta)
    ]

    assert len(enums) == 4
    for member in (member for each in enums for member in each):
        assert member.value == member.name.lower()
        assert isinstance(member, str)


def test_the_package_is_typed():
    """Type checkers read our annotations."""
    from importlib.resources import files

    assert files("dispatchers").joinpath("py.typed").is_file()


def test_every_name_is_loaded_from_the_module_that_type_checkers_read():
    """The imports for type checkers and the table of the first use are the same."""
    tree = ast.parse(Path(dispatchers.__file__).read_text())
    imports = {
        str(node.module).removeprefix("dispatchers."): " ".join(each.name for each in node.names)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }

    assert {
        module: " ".join(names.split()) for module, names in dispatchers._MODULES.items()
    } == imports
    assert sorted(" ".join(imports.values()).split()) == list(dispatchers.__all__)


def test_the_first_name_that_is_asked_for_loads_the_core():
    """By attribute, by import, by star, in many threads; a wrong name is an AttributeError."""
    threads = (
        "import threading, dispatchers; found = []; "
        "use = lambda: found.append(dispatchers.task is dispatchers.Task); "
        "all_ = [threading.Thread(target=use) for _ in range(8)]; "
        "[each.start() for each in all_]; [each.join() for each in all_]; print(*found)"
    )
    star = "from dispatchers import *; print(task.__name__, len(dir()) > 50)"
    wrong = "import dispatchers; print(hasattr(dispatchers, 'tsak'), 'task' in dir(dispatchers))"

    assert in_a_fresh_interpreter(threads).stdout.split() == ["False"] * 8
    assert in_a_fresh_interpreter(star).stdout.split() == ["task", "True"]
    assert in_a_fresh_interpreter(wrong).stdout.split() == ["False", "True"]
