"""`settings.DISPATCHERS`, in the shape of `CACHES`."""

from __future__ import annotations

from typing import Any

import pytest
from dispatchers_django._settings import source
from dispatchers_django.checks import check_deployment, check_settings
from django.test import override_settings

from dispatchers import ConfigurationError, configure, get_dispatcher, override


def dispatchers(**aliases: Any) -> Any:
    return override_settings(DISPATCHERS=aliases)


def test_aliases_have_a_backend_and_options():
    """And are followed when a test overrides them."""
    with dispatchers(
        default={"BACKEND": "null"}, mail={"BACKEND": "memory", "OPTIONS": {"queue": "m"}}
    ):
        found = get_dispatcher().name, get_dispatcher("mail").options.queue
        with dispatchers(default={"BACKEND": "thread"}):
            inner = get_dispatcher().name
        after = get_dispatcher().name

    assert (found, inner, after) == (("null", "m"), "thread", "null")


def test_the_environment_ranks_above_and_the_file_below(monkeypatch, tmp_path):
    """As for every source; the target is called `django`."""
    file = tmp_path / "dispatchers.toml"
    file.write_text('target = "x"\n[targets.x]\ndefault = "thread"\n')
    monkeypatch.setenv("DISPATCHERS_CONFIG", str(file))
    monkeypatch.setenv("DISPATCHERS_TARGETS__DJANGO__DEFAULT__QUEUE", "of the environment")

    with dispatchers(default={"BACKEND": "memory", "OPTIONS": {"queue": "mine"}}):
        configure()
        found = get_dispatcher()
        assert (found.name, found.options.queue) == ("memory", "of the environment")


def test_a_test_s_override_ranks_above():
    """`dispatchers.override` beats every source."""
    with dispatchers(default={"BACKEND": "null"}), override(default="memory"):
        assert get_dispatcher().name == "memory"


def test_without_the_setting_it_takes_no_part():
    """The file configures, then."""
    assert source() is None


def test_everything_else_stands_in_a_setting_of_its_own():
    """In the shape of `dispatchers.toml`."""
    rest = {"tasks": {"shop.send": {"queue": "low"}}, "modules": ["shop.more"]}
    with override_settings(DISPATCHERS_SETTINGS=rest):
        assert source() == {**rest, "modules": ["dispatchers_django.setup", "shop.more"]}
    with override_settings(DISPATCHERS_SETTINGS={"tasks": ["shop.more"]}):
        assert source() == {"modules": ["dispatchers_django.setup", "shop.more"]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"DISPATCHERS": []}, r"settings\.DISPATCHERS must be a mapping, not list"),
        ({"DISPATCHERS": {"default": "inline"}}, r"DISPATCHERS\['default'\] must be a mapping"),
        ({"DISPATCHERS": {"default": {}}}, r"\['default'\] has no 'BACKEND'"),
        ({"DISPATCHERS": {"default": {"BACKEND": "inline", "path": ""}}}, "'path'.*OPTIONS"),
        ({"DISPATCHERS": {"default": {"BACKEND": "inlin"}}}, "inline"),
        ({"DISPATCHERS": {"default": {"BACKEND": "null", "OPTIONS": {"quue": ""}}}}, "queue"),
        ({"DISPATCHERS": {}, "DISPATCHERS_SETTINGS": {"targets": {}}}, "'targets'"),
    ],
)  # fmt: skip
def test_mistakes_are_told(given, said):
    """With the place, and the cure; by the system check, too."""
    with override_settings(**given):
        with pytest.raises(ConfigurationError, match=said):
            get_dispatcher()
        found = check_settings(None)

    assert [each.id for each in found] == ["dispatchers.E001"]
    assert found[0].is_serious()


def test_what_is_right_passes_the_checks(tmp_path):
    """Nothing is said of it."""
    options = {"path": str(tmp_path / "queue.sqlite3")}
    with dispatchers(default={"BACKEND": "sqlite", "OPTIONS": options}):
        assert check_settings(None) == []
        assert check_deployment(None) == []


def test_a_deployment_is_told_of_work_that_is_lost_with_its_process():
    """`check --deploy`."""
    with dispatchers(default={"BACKEND": "thread"}):
        found = check_deployment(None)

    assert [each.id for each in found] == ["dispatchers.W002"]
    assert "'thread'" in found[0].msg


def test_a_deployment_is_told_of_an_endpoint_that_trusts_everybody():
    """`check --deploy` refuses `insecure`."""
    endpoint = {"endpoint": {"worker": True, "insecure": True}}
    with override_settings(DISPATCHERS_SETTINGS=endpoint):
        assert "dispatchers.E002" in {each.id for each in check_deployment(None)}
