"""Hooks that the configuration names see every run of the endpoint."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from dispatchers import hooks
from dispatchers._config.lifecycle import reload
from dispatchers.http import PATH, Endpoint, asgi_app, wsgi_app

from .test_apps import asgi, http_scope, part, wsgi

HOOKS = """
import dispatchers.hooks, http_hooks_seen
@dispatchers.hooks.after_run
def note(run, outcome): http_hooks_seen.seen.append((run.task.name, outcome.reason.value))
"""


@pytest.fixture
def seen(tmp_path):
    """What the hooks of a configuration file have seen."""
    (tmp_path / "http_hooks_seen.py").write_text("seen = []\n")
    (tmp_path / "http_hooks_own.py").write_text(HOOKS)
    settings = {"worker": True, "secrets": ["the-first-secret-of-two"], "skew_grace": 0}
    table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    text = f'hooks = ["http_hooks_own"]\n[endpoint]\n{table}\n'
    (tmp_path / "dispatchers.toml").write_text(text)
    before = dict(vars(hooks.hooks))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        patch.setenv("DISPATCHERS_CONFIG", str(tmp_path / "dispatchers.toml"))
        reload()
        import http_hooks_seen

        yield http_hooks_seen.seen
    vars(hooks.hooks).update(before)
    for name in ("http_hooks_seen", "http_hooks_own"):
        sys.modules.pop(name, None)
    reload()


def pushed_asgi(app, scene, body):
    asgi(app, [part(body, False)], scope=http_scope(scene))


def pushed_wsgi(app, scene, body):
    wsgi(app, scene, body, CONTENT_LENGTH=str(len(body)))


def pushed(endpoint, scene, body):
    endpoint.handle("POST", PATH, scene.headers(), body)


def apushed(endpoint, scene, body):
    asyncio.run(endpoint.ahandle("POST", PATH, scene.headers(), body))


@pytest.mark.parametrize(
    ("make", "push"),
    [
        (Endpoint, pushed),
        (Endpoint, apushed),
        (asgi_app, pushed_asgi),
        (wsgi_app, pushed_wsgi),
    ],
)
def test_hooks_of_the_configuration_see_every_run(scene, seen, make, push):
    """A run that ends well, and one of an unknown task, which is dead."""
    app = make()

    push(app, scene, scene.body)
    push(app, scene, scene.foreign("nobody.knows"))

    assert seen == [("dispatchers.testing.note", "succeeded"), ("nobody.knows", "unknown_task")]


def test_settings_from_code_have_the_configured_hooks_too(scene, seen):
    """Hooks are of the process, not of the table `[endpoint]`."""
    pushed(Endpoint(scene.settings()), scene, scene.body)

    assert seen == [("dispatchers.testing.note", "succeeded")]
