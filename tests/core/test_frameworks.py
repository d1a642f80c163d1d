"""What a framework's glue uses of the core."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dispatchers import (
    ConfigurationError,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    get_dispatcher,
    override,
    task,
)
from dispatchers.frameworks import dispatcher_for, refused, reload, use_settings


@pytest.fixture
def settings() -> Iterator[dict[str, Any]]:
    """A framework's settings, which take part."""
    values: dict[str, Any] = {"target": "t", "targets": {"t": {"default": "null"}}}
    use_settings(lambda: values, "settings.DISPATCHERS")
    yield values
    use_settings(None, "")


def test_a_framework_s_settings_take_part_and_are_followed(settings):
    """They are read again when the framework says that they changed."""
    before = get_dispatcher().name
    settings["targets"] = {"t": {"default": "memory"}}
    reload()

    assert (before, get_dispatcher().name) == ("null", "memory")


def test_errors_name_the_framework_s_setting(settings):
    """Whoever reads it knows where to look."""
    settings["targets"] = {"t": {"default": {"backend": "null", "quue": "x"}}}
    reload()

    with pytest.raises(ConfigurationError, match=r"quue \(settings\.DISPATCHERS\)"):
        get_dispatcher()


def test_a_task_is_found_its_dispatcher():
    """The host's word by the task's name, else the task's own alias, else the default."""

    @task(name="acme.audit", dispatcher="acme")
    def audit() -> None: ...

    with override(default="null", acme="memory", other="thread"):
        own, unknown = dispatcher_for("acme.audit"), dispatcher_for("acme.unknown")
        with override({"tasks": {"acme.audit": {"dispatcher": "other"}}}):
            hosts = dispatcher_for("acme.audit")

    assert (own.alias, unknown.alias, hosts.alias) == ("acme", "default", "other")


def test_where_there_is_no_dispatcher_there_is_an_answer():
    """C1: it carries the request, and why."""
    request = DispatchRequest(task="acme.audit", payload={})

    response = refused("acme", request, ConfigurationError("nothing of the kind"))

    assert response.status is DispatchStatus.REJECTED
    assert response.error is not None
    assert response.error.category is ErrorCategory.CONFIGURATION
    assert (response.request_id, response.dispatcher) == (request.id, "acme")
