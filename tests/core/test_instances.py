"""The dispatchers of a process: built once, rebuilt when something changes, closed at the end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dispatchers import (
    BackendOptions,
    BaseDispatcher,
    Capabilities,
    ConfigurationError,
    ErrorCategory,
    RejectedError,
    Sent,
    check,
    configure,
    get_dispatcher,
    override,
    register,
)
from dispatchers._config import container as _snapshot
from dispatchers._config import registry
from dispatchers._config.api import (
    close_all,
    current,
    fallbacks,
    problems,
    reload,
    resolve,
    settings_of_task,
    state,
)
from dispatchers._config.container import Snapshot
from dispatchers._config.layers import Layer
from dispatchers._config.lifecycle import View

WAIT = 20.0
"""Seconds after which a test that waits for another thread has failed."""


class AcmeOptions(BackendOptions):
    """Options of a made-up backend."""

    label: str = ""
    app: object = None


class AcmeDispatcher(BaseDispatcher):
    """A backend that counts how often it is built and closed."""

    name = "acme"
    contract = 1
    capabilities = Capabilities()
    Options = AcmeOptions
    options: AcmeOptions
    built: list[str]
    closed: list[str]
    left = 0

    def __init__(
        self, options: AcmeOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        self.built.append(self.alias)

    def _send(self, request: object, body: bytes, *, timeout: float) -> Sent:
        return Sent()

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        return True

    def _close(self, timeout: float) -> int:
        self.closed.append(self.alias)
        return self.left


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("DISPATCHERS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    code = dict(registry.table.code)
    empty = View((), Layer({}), {(): Snapshot((), Layer({}))})
    state.change(lambda _: empty)
    yield
    registry.table.code = code
    registry.refresh()
    state.change(lambda _: empty.emptied())


@pytest.fixture
def acme() -> type[AcmeDispatcher]:
    kept = {"built": [], "closed": [], "__module__": __name__}
    return register(type("Acme", (AcmeDispatcher,), kept))


def settings(**dispatchers: object) -> dict[str, object]:
    return {"target": "test", "targets": {"test": dispatchers}}


def acme_with(**options: object) -> dict[str, object]:
    return {"backend": "acme", **options}


# One instance.


def test_the_same_dispatcher_is_given_each_time(acme: type[AcmeDispatcher]) -> None:
    """An instance is built once, on first use."""
    configure(settings(default="acme", other="acme"))

    first, second = get_dispatcher(), get_dispatcher("default")

    assert first is second
    assert first is not get_dispatcher("other")
    assert acme.built == ["default", "other"]


def test_concurrent_first_use_builds_one(acme: type[AcmeDispatcher]) -> None:
    """Instances are built once per process and settings, also under concurrent first use."""
    gate = threading.Barrier(8)
    original = acme._check
    configure(settings(default="acme"))

    def first_use(_: int) -> BaseDispatcher:
        gate.wait(WAIT)
        return get_dispatcher()

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(first_use, range(8)))

    assert len(found) == 1
    assert acme.built == ["default"]
    assert acme._check is original


def test_threads_wait_for_the_one_that_builds(
    acme: type[AcmeDispatcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second thread gets what the first one is still building."""
    building, go = threading.Event(), threading.Event()

    def slow(options: BackendOptions, *, alias: str) -> AcmeDispatcher:
        building.set()
        assert go.wait(WAIT)
        return acme(options, alias=alias)  # type: ignore[arg-type]

    monkeypatch.setattr(_snapshot, "build", lambda s: slow(s.options, alias=s.alias))
    configure(settings(default="acme"))

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(get_dispatcher)
        assert building.wait(WAIT)
        two = pool.submit(get_dispatcher)
        go.set()
        found = {one.result(WAIT), two.result(WAIT)}

    assert len(found) == 1
    assert acme.built == ["default"]


def test_waiting_for_a_build_ends(
    acme: type[AcmeDispatcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C2: a build that never ends, two imports that wait for each other, hangs nobody else."""
    building, go = threading.Event(), threading.Event()

    def stuck(specification: object) -> AcmeDispatcher:
        building.set()
        assert go.wait(WAIT)
        return acme()

    monkeypatch.setattr(_snapshot, "build", stuck)
    monkeypatch.setattr(_snapshot, "BUILD_WAIT", 0.05)
    configure(settings(default="acme"))

    with ThreadPoolExecutor(1) as pool:
        one = pool.submit(get_dispatcher)
        assert building.wait(WAIT)
        with pytest.raises(RejectedError, match="still being built by another thread") as caught:
            get_dispatcher()
        go.set()
        one.result(WAIT)

    assert caught.value.category is ErrorCategory.TIMEOUT


def test_a_constructor_that_asks_for_itself_is_told(acme: type[AcmeDispatcher]) -> None:
    """A dispatcher whose constructor asks for its own alias is an error, not endless."""
    acme.__init__ = lambda self, options, alias: get_dispatcher(alias)  # type: ignore[assignment,method-assign,misc]
    configure(settings(default="acme"))

    with pytest.raises(ConfigurationError, match="is being built by this very thread"):
        get_dispatcher()


def test_a_constructor_that_fails_is_told_without_its_secrets(acme: type[AcmeDispatcher]) -> None:
    """What a constructor raises becomes a configuration error, scrubbed."""

    def fail(self: object, options: object, *, alias: str) -> None:
        raise OSError("cannot reach redis://u:hunter2@host")

    original = acme.__init__
    acme.__init__ = fail  # type: ignore[assignment,method-assign]
    configure(settings(default=acme_with(label="redis://u:hunter2@host")))
    with pytest.raises(ConfigurationError) as caught:
        get_dispatcher()
    acme.__init__ = original  # type: ignore[method-assign]

    assert "dispatcher 'default' (acme) cannot be built: OSError" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert get_dispatcher().alias == "default"


def test_an_unknown_alias_raises_with_the_nearest(acme: object) -> None:
    """`get_dispatcher` raises for an alias that is not configured."""
    configure(settings(default="acme", tracking="acme"))

    with pytest.raises(ConfigurationError, match=r"no dispatcher 'trakcing'.*'tracking'"):
        get_dispatcher("trakcing")


@pytest.mark.parametrize("alias", [None, 5, b"default"])
def test_an_alias_that_is_no_text_is_refused(alias: object) -> None:
    """An alias of another type is a configuration error."""
    with pytest.raises(ConfigurationError, match="an alias is text"):
        get_dispatcher(alias)  # type: ignore[arg-type]


def test_nothing_configured_is_inline_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """No configuration at all means inline, said once in the log."""
    _snapshot._said_once.clear()

    with caplog.at_level(logging.DEBUG, "dispatchers"):
        first = get_dispatcher()
        reload()
        second = get_dispatcher()

    assert {first.name, second.name} == {"inline"}
    assert [
        r.levelname for r in caplog.records if "no dispatchers are configured" in r.message
    ] == ["WARNING"]


def test_an_override_is_not_told_that_nothing_is_configured(
    acme: type[AcmeDispatcher], caplog: pytest.LogCaptureFixture
) -> None:
    """A test that gives its dispatchers needs no configuration, and no reminder of one."""
    _snapshot._said_once.clear()

    with override(default="acme"):
        get_dispatcher()

    assert caplog.records == []


def test_an_empty_dispatcher_is_a_dispatcher(acme: type[AcmeDispatcher]) -> None:
    """A dispatcher whose length is 0, a queue in memory for one, is not built again."""
    acme.__len__ = lambda self: 0  # type: ignore[attr-defined]
    configure(settings(default="acme"))

    assert get_dispatcher() is get_dispatcher()
    assert resolve(None) is get_dispatcher()
    assert acme.built == ["default"]


# Fall-back.


def test_a_tasks_alias_falls_back_to_default(acme: object) -> None:
    """A library's own alias goes through `default` where the host has not configured it."""
    configure(settings(default="acme", known="acme"))

    assert resolve("acme_audit") is get_dispatcher()
    assert resolve("known") is get_dispatcher("known")
    assert resolve(None) is get_dispatcher()
    assert fallbacks() == ("acme_audit",)
    assert [p.message for p in problems() if p.severity == "warning"] == [
        "dispatcher 'acme_audit' is not configured: its tasks go through 'default'"
    ]


def test_without_a_default_there_is_nothing_to_fall_back_to(acme: object) -> None:
    """A target without `default` answers an unknown alias with an error."""
    configure(settings(other="acme"))

    with pytest.raises(ConfigurationError, match="no dispatcher 'default' in target 'test'"):
        resolve("acme_audit")


# configure.


def test_configure_raises_at_once_and_changes_nothing_then(acme: object) -> None:
    """Wrong settings raise where they are given, with every problem, and the old ones stay."""
    configure(settings(default="acme"))
    before = get_dispatcher()
    generation = state.generation

    with pytest.raises(ConfigurationError) as caught:
        configure(settings(default=acme_with(labl="x"), other="nowhere"))

    assert "targets.test.default.labl" in str(caught.value)
    assert "targets.test.other" in str(caught.value)
    assert get_dispatcher() is before
    assert state.generation == generation


def test_configure_builds_nothing(acme: type[AcmeDispatcher]) -> None:
    """Validation reads; only use builds."""
    configure(settings(default="acme"))

    assert acme.built == []


def test_configure_selects_the_target(acme: object) -> None:
    """`configure({...}, target=...)` selects."""
    configure({"targets": {"a": {"default": "inline"}, "b": {"default": "acme"}}}, target="b")

    assert get_dispatcher().name == "acme"
    assert current().target == "b"


def test_configure_replaces_what_was_configured_before(acme: object) -> None:
    """Settings from an earlier `configure` do not linger."""
    configure({**settings(default="acme"), "tasks": {"a": {"queue": "x"}}})

    configure(settings(default="acme"))

    assert settings_of_task("a") == {}


def test_changed_settings_close_the_old_dispatcher(acme: type[AcmeDispatcher]) -> None:
    """A dispatcher is rebuilt when its settings change, and the old one is closed."""
    configure(settings(default=acme_with(label="a"), other="acme"))
    default, other = get_dispatcher(), get_dispatcher("other")

    configure(settings(default=acme_with(label="b"), other="acme"))

    assert acme.closed == ["default"]
    assert get_dispatcher() is not default
    assert get_dispatcher("other") is other


def test_the_same_settings_keep_the_dispatcher(acme: type[AcmeDispatcher]) -> None:
    """Configuring the same again closes and builds nothing."""
    app = object()
    configure(settings(default=acme_with(app=app)))
    before = get_dispatcher()

    configure(settings(default=acme_with(app=app)))
    reload()

    assert get_dispatcher() is before
    assert acme.closed == []


def test_the_same_settings_replace_a_dispatcher_that_was_closed(acme: type[AcmeDispatcher]) -> None:
    """Else everything would be refused for ever, in a test suite that closes after each test."""
    configure(settings(default=acme_with()))
    before = get_dispatcher()

    before.close()
    configure(settings(default=acme_with()))

    assert get_dispatcher() is not before
    assert acme.built == ["default"] * 2


def test_every_change_raises_the_generation(acme: object) -> None:
    """What a task resolved is good for one generation."""
    seen = [state.generation]

    configure(settings(default="acme"))
    seen.append(state.generation)
    with override(default="inline"):
        seen.append(state.generation)
    seen.append(state.generation)
    reload()
    seen.append(state.generation)

    assert seen == sorted(set(seen))


def test_reload_reads_environment_and_file_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources are read once, and again after `reload`."""
    path = tmp_path / "dispatchers.toml"
    path.write_text('target = "t"\n[targets.t.default]\nbackend = "inline"\nqueue = "a"\n')
    first = get_dispatcher()
    path.write_text('target = "t"\n[targets.t.default]\nbackend = "inline"\nqueue = "b"\n')
    monkeypatch.setenv("DISPATCHERS_TARGETS__T__DEFAULT__DEADLINE", "7")

    unchanged = get_dispatcher()
    reload()

    assert unchanged is first
    assert (get_dispatcher().options.queue, get_dispatcher().options.deadline) == ("b", 7.0)


def test_broken_settings_are_told_on_every_use(tmp_path: Path) -> None:
    """A file that is broken is an error for each caller, and for `current` as well."""
    (tmp_path / "dispatchers.toml").write_text("targts = {}")

    for use in (get_dispatcher, current, lambda: resolve("x"), lambda: settings_of_task("x")):
        with pytest.raises(ConfigurationError, match="did you mean 'targets'"):
            use()


def test_a_change_that_was_overtaken_is_computed_again(acme: object) -> None:
    """Two threads that change the configuration at once both have their say."""
    seen: list[View] = []

    def overtaken(view: View) -> View:
        seen.append(view)
        if len(seen) == 1:
            configure(settings(default="acme"))
        return view.changed(view.stack, view.explicit, anew=True)

    state.change(overtaken)

    assert len(seen) == 2
    assert get_dispatcher().name == "acme"


def test_a_dispatcher_built_while_the_settings_change_is_of_the_new_ones(
    acme: type[AcmeDispatcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is given a dispatcher whose settings went while it was being built."""
    original, building, go = _snapshot.build, threading.Event(), threading.Event()

    def slow(specification: _snapshot.Specification) -> BaseDispatcher:
        if specification.raw["label"] == "old":
            building.set()
            assert go.wait(WAIT)
        return original(specification)

    monkeypatch.setattr(_snapshot, "build", slow)
    configure(settings(default=acme_with(label="old")))

    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(get_dispatcher)
        assert building.wait(WAIT)
        configure(settings(default=acme_with(label="new")))
        go.set()
        found = early.result(WAIT)

    assert found is get_dispatcher()
    assert found.options.label == "new"  # type: ignore[attr-defined]
    assert acme.closed == ["default"]


# override.


def test_override_takes_aliases_and_restores_exactly(acme: type[AcmeDispatcher]) -> None:
    """Within `override` another dispatcher serves; afterwards it is the same object as before."""
    configure(settings(default="acme", other="acme"))
    default, other = get_dispatcher(), get_dispatcher("other")

    with override(default={"backend": "inline", "queue": "x"}):
        assert get_dispatcher().name == "inline"
        assert get_dispatcher().options.queue == "x"
        assert get_dispatcher("other") is other

    assert get_dispatcher() is default
    assert get_dispatcher("other") is other
    assert acme.closed == []


def test_override_takes_a_dispatcher_and_never_closes_it(acme: type[AcmeDispatcher]) -> None:
    """A dispatcher object is used as it is, and stays the caller's."""
    own = acme(alias="own")

    with override(default=own):
        assert get_dispatcher() is own

    assert acme.closed == []
    assert get_dispatcher() is not own


def test_override_needs_no_selected_target(acme: type[AcmeDispatcher]) -> None:
    """A test may give a dispatcher where the deployment has not selected a target."""
    own = acme()
    with pytest.raises(ConfigurationError, match="no target is selected"):
        configure({"targets": {"gcp": {"default": "inline"}}})

    with override({"targets": {"gcp": {"default": "inline"}}}, default=own):
        assert get_dispatcher() is own
        assert resolve("acme_audit") is own


def test_override_begins_a_dispatcher_afresh(acme: object) -> None:
    """The options of the overridden dispatcher do not mix with those of the new one."""
    configure(settings(default=acme_with(label="a"), other=acme_with(label="b")))

    with override(settings(default={"backend": "inline", "queue": "x"})):
        assert get_dispatcher().name == "inline"
        assert get_dispatcher("other").name == "acme"


def test_override_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test says counts, whatever the machine's environment says."""
    monkeypatch.setenv("DISPATCHERS_TARGETS__TEST__DEFAULT__QUEUE", "environment")

    with override(settings(default={"backend": "inline"})):
        assert get_dispatcher().options.queue is None


def test_overrides_nest(acme: type[AcmeDispatcher]) -> None:
    """An inner override adds to the outer one, and leaving it leaves the outer one."""
    with override(default="inline", other="inline"):
        outer = get_dispatcher()
        with override(default="acme"):
            assert get_dispatcher().name == "acme"
            assert get_dispatcher("other").name == "inline"
        assert get_dispatcher() is outer

    assert acme.closed == ["default"]


def test_overrides_may_end_in_any_order() -> None:
    """Two threads' overrides overlap, and in the end everything is as it was."""
    before = get_dispatcher()
    one, two = override(default={"backend": "inline", "queue": "one"}), override(extra="inline")

    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    between = get_dispatcher()
    two.__exit__(None, None, None)

    assert between.options.queue is None
    assert get_dispatcher() is before
    assert state.view.stack == ()


def test_configure_within_an_override_is_undone(acme: object) -> None:
    """What is configured within an override ends with it."""
    configure(settings(default="acme"))

    with override(extra="inline"):
        configure(settings(default={"backend": "inline", "queue": "inner"}))
        inner = get_dispatcher()

    assert inner.options.queue == "inner"
    assert get_dispatcher().name == "acme"


def test_override_restores_after_an_exception() -> None:
    """An exception inside leaves nothing behind."""
    before = get_dispatcher()

    with pytest.raises(ZeroDivisionError):
        with override(default={"backend": "inline", "queue": "x"}):
            1 / 0  # noqa: B018

    assert get_dispatcher() is before


@pytest.mark.parametrize(
    "enter",
    [
        lambda: override(default={"backend": "inline", "quue": "x"}).__enter__(),
        lambda: override(default="nowhere").__enter__(),
        lambda: override(default=3).__enter__(),  # type: ignore[arg-type]
        lambda: override(default=AcmeDispatcher).__enter__(),  # type: ignore[arg-type]
        lambda: override({"targts": {}}).__enter__(),
        lambda: override(target="nowhere").__enter__(),
    ],
)
def test_a_wrong_override_raises_on_entering_and_leaves_nothing(enter: object) -> None:
    """A misspelt override is told where it stands."""
    before = state.view

    with pytest.raises(ConfigurationError):
        enter()  # type: ignore[operator]

    assert state.view is before


def test_override_is_a_decorator_of_functions_and_coroutines() -> None:
    """As a decorator it holds for each call, awaits included."""

    @override(default={"backend": "inline", "queue": "x"})
    def sync() -> str | None:
        return get_dispatcher().options.queue

    @override(default={"backend": "inline", "queue": "x"})
    async def later() -> str | None:
        await asyncio.sleep(0)
        return get_dispatcher().options.queue

    assert [sync(), asyncio.run(later()), sync()] == ["x", "x", "x"]
    assert get_dispatcher().options.queue is None


def test_override_holds_for_other_threads() -> None:
    """An application's own threads see what the test says."""
    with override(default={"backend": "inline", "queue": "x"}), ThreadPoolExecutor(1) as pool:
        assert pool.submit(get_dispatcher).result(WAIT).options.queue == "x"


def test_concurrent_overrides_leave_nothing_behind() -> None:
    """Many threads that override at once all find what they gave, and nothing stays."""
    gate = threading.Barrier(6)

    def use(number: int) -> bool:
        gate.wait(WAIT)
        good = True
        for _ in range(10):
            with override(**{f"own_{number}": {"backend": "inline", "queue": str(number)}}):
                good &= get_dispatcher(f"own_{number}").options.queue == str(number)
        return good

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(use, range(6)))

    assert state.view.stack == ()
    assert list(state.view.snapshots) == [()]


# Tasks and hooks.


def test_the_hosts_word_on_a_task_is_by_exact_name(acme: object) -> None:
    """A host overrides a task by its exact name; what it does not say is not there."""
    configure({**settings(default="acme"), "tasks": {"acme.record": {"queue": "low"}}})

    assert settings_of_task("acme.record") == {"queue": "low"}
    assert settings_of_task("acme.recor") == {}


def test_hooks_are_imported_before_the_first_dispatcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules under `hooks` are imported once, when the first dispatcher is built."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "acme_hooks_one.py").write_text("")
    configure({"hooks": ["acme_hooks_one"]})
    assert "acme_hooks_one" not in sys.modules

    get_dispatcher()

    assert "acme_hooks_one" in sys.modules


def test_hooks_that_cannot_be_imported_are_told() -> None:
    """A hooks module that fails is a configuration error with its cause."""
    configure({"hooks": ["acme_no_such_hooks"]})

    with pytest.raises(ConfigurationError, match="importing 'acme_no_such_hooks' raised Module"):
        get_dispatcher()


# check.


def test_check_lists_every_problem_of_every_dispatcher(
    acme: type[AcmeDispatcher], tmp_path: Path
) -> None:
    """C12: the start-up check raises one error with all that is wrong."""
    acme._check = fail  # type: ignore[method-assign]
    (tmp_path / "dispatchers.toml").write_text(
        textwrap.dedent(
            """
            target = "test"
            modules = ["acme_no_such_module"]
            [targets.test]
            a = { backend = "acme" }
            b = { backend = "nowhere" }
            c = { backend = "inline", waiv = [] }
            d = { backend = "inline" }
            """
        )
    )

    with pytest.raises(ConfigurationError) as caught:
        check()

    message = str(caught.value)
    assert message.startswith("4 problems:")
    for part in ("acme_no_such_module", "dispatcher 'a': no app", "test.b", "test.c.waiv"):
        assert part in message
    assert [p.alias for p in problems()] == ["", "a", "b", "c"]


def fail(self: object) -> None:
    raise ConfigurationError("no app")


def test_check_passes_when_all_is_well(acme: object) -> None:
    """C12: nothing is raised for a target in order."""
    configure(settings(default="acme"))

    check()

    assert problems() == []


def test_check_contacts_on_request_only(acme: type[AcmeDispatcher]) -> None:
    """C12: the backend is reached only when asked."""
    contacts: list[str] = []
    acme._contact = lambda self: contacts.append(self.alias) or ()  # type: ignore[method-assign,assignment,misc]
    configure(settings(default="acme"))

    check()
    quiet = list(contacts)
    check(contact=True)

    assert (quiet, contacts) == ([], ["default"])


def test_another_target_is_checked_without_selecting_it(acme: type[AcmeDispatcher]) -> None:
    """`check(target=...)` builds that target's dispatchers for the check, and closes them."""
    targets = {"test": {"default": "inline"}, "prod": {"default": "acme", "bad": "nowhere"}}
    configure({"target": "test", "targets": targets})

    with pytest.raises(ConfigurationError, match=r"targets.prod.bad .*no backend 'nowhere'"):
        check(target="prod")

    assert acme.built == acme.closed == ["default"]
    assert get_dispatcher().name == "inline"


def test_a_checked_dispatcher_that_cannot_be_closed_is_no_error(
    acme: type[AcmeDispatcher], caplog: pytest.LogCaptureFixture
) -> None:
    """C12: what `close` raises after the check of another target is logged, not raised."""
    acme._close = lambda self, timeout: 1 // 0  # type: ignore[method-assign,assignment,misc]
    configure({"target": "a", "targets": {"a": {"default": "inline"}, "b": {"default": "acme"}}})

    assert problems("b") == []
    assert "closing 'default' (acme) raised ZeroDivisionError" in caplog.text


def test_problems_never_raises(tmp_path: Path) -> None:
    """A configuration that cannot be read is a problem like any other."""
    (tmp_path / "dispatchers.toml").write_text("=")

    (problem,) = problems()

    assert problem.severity == "error"
    assert "is not TOML" in problem.message
    assert problems("other")[0].message == problem.message


def test_one_broken_dispatcher_breaks_no_other(tmp_path: Path) -> None:
    """An alias that is configured wrongly rejects its own dispatches only."""
    (tmp_path / "dispatchers.toml").write_text(
        'target = "t"\n[targets.t]\ndefault = "inline"\nbad = "nowhere"\n'
    )

    assert get_dispatcher().name == "inline"
    with pytest.raises(ConfigurationError):
        get_dispatcher("bad")


# The end.


def test_close_all_closes_and_the_next_use_builds_anew(acme: type[AcmeDispatcher]) -> None:
    """After `close_all` a dispatcher is built again; what was left is counted."""
    acme.left = 2
    configure(settings(default="acme", other="acme"))
    before = get_dispatcher()
    get_dispatcher("other")

    left = close_all()
    acme.left = 0

    assert left == 4
    assert sorted(acme.closed) == ["default", "other"]
    assert get_dispatcher() is not before


def test_a_dispatcher_that_cannot_be_closed_hinders_no_other(
    acme: type[AcmeDispatcher], caplog: pytest.LogCaptureFixture
) -> None:
    """What `close` raises is logged."""
    configure(settings(a="acme", b="acme"))
    broken, other = get_dispatcher("a"), get_dispatcher("b")
    broken._close = lambda timeout: 1 // 0  # type: ignore[method-assign]

    close_all()

    assert acme.closed == [other.alias]
    assert "closing 'a' (acme) raised ZeroDivisionError" in caplog.text


def test_work_that_is_left_is_said(
    acme: type[AcmeDispatcher], caplog: pytest.LogCaptureFixture
) -> None:
    """Accepted work that a closed dispatcher left undone is an error in the log."""
    acme.left = 3
    configure(settings(default="acme"))
    get_dispatcher()

    close_all()

    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.getMessage() == "'default' (acme) was closed with 3 undone"


SCRIPT = """
import os, sys
from dispatchers import BaseDispatcher, Capabilities, Sent, configure, get_dispatcher, register

@register
class Acme(BaseDispatcher):
    name = "acme"
    contract = 1
    capabilities = Capabilities()
    def _send(self, request, body, *, timeout): return Sent()
    def _category(self, exc): return None
    def _maybe_sent(self, exc): return True
    def _close(self, timeout):
        print("closed", os.getpid() == PARENT, 0 < timeout <= 5.0, flush=True)
        return 1

PARENT = os.getpid()
configure({"targets": {"t": {"default": "acme"}}}, target="t")
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore:This process",
            "-c",
            SCRIPT + textwrap.dedent(script),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_at_exit_dispatchers_finish_what_they_hold() -> None:
    """C8: at exit every dispatcher is closed within bounds, and what is left is logged."""
    done = run("get_dispatcher()")

    assert done.stdout.split("\n")[0] == "closed True True"
    assert "'default' (acme) was closed with 1 undone" in done.stderr
    assert done.returncode == 0


def test_exit_functions_of_the_application_may_still_dispatch() -> None:
    """An exit function that the application registered runs before dispatchers are closed."""
    done = run(
        """
        import atexit
        atexit.register(lambda: print("open", not get_dispatcher()._closed, flush=True))
        get_dispatcher()
        """
    )

    assert done.stdout.split("\n")[:2] == ["open True", "closed True True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_has_dispatchers_of_its_own() -> None:
    """C8: after a fork the child builds anew, and neither closes nor loses the parent's."""
    done = run(
        """
        before = get_dispatcher()
        pid = os.fork()
        if pid == 0:
            print("child", get_dispatcher() is before, before._closed, flush=True)
            sys.exit()
        os.waitpid(pid, 0)
        print("parent", get_dispatcher() is before, before._closed, flush=True)
        """
    )

    assert done.stdout.splitlines() == [
        "child False False",
        "closed False True",
        "parent True False",
        "closed True True",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_while_another_thread_builds_does_not_block_the_child() -> None:
    """C8: locks that another thread held at the fork are fresh in the child."""
    done = run(
        """
        import threading
        building, go = threading.Event(), threading.Event()
        original = Acme.__init__
        def slow(self, options, *, alias):
            if threading.current_thread() is not threading.main_thread():
                building.set()
                go.wait(30)
            original(self, options, alias=alias)
        Acme.__init__ = slow
        thread = threading.Thread(target=get_dispatcher)
        thread.start()
        building.wait(30)
        pid = os.fork()
        if pid == 0:
            print("child", get_dispatcher().alias, flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        go.set()
        thread.join()
        """
    )

    assert done.stdout.splitlines()[0] == "child default"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_children_of_multiprocessing_finish_what_they_hold() -> None:
    """C8: a forked child of multiprocessing, which ends without exit functions, drains too."""
    done = run(
        """
        import multiprocessing
        child = multiprocessing.get_context("fork").Process(target=get_dispatcher)
        child.start()
        child.join()
        """
    )

    assert done.stdout.splitlines() == ["closed False True"]


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no alarm")
def test_a_signal_handler_may_ask_for_a_dispatcher(
    acme: object, monkeypatch: pytest.MonkeyPatch, on_signal: Any
) -> None:
    """C8: a handler that interrupts a build of the same alias is answered, not blocked."""
    original, answers = _snapshot.build, []

    def interrupted(specification: _snapshot.Specification) -> BaseDispatcher:
        signal.raise_signal(signal.SIGALRM)
        return original(specification)

    def handler(*_: object) -> None:
        try:
            answers.append(get_dispatcher())
        except ConfigurationError as exc:
            answers.append(str(exc))

    monkeypatch.setattr(_snapshot, "build", interrupted)
    configure(settings(default="acme"))
    with on_signal(signal.SIGALRM, handler):
        found = get_dispatcher()

    assert found.alias == "default"
    assert len(answers) == 1
    assert "is being built by this very thread" in str(answers[0])
