"""The in-process backends as configuration builds them."""

from __future__ import annotations

import pytest

from dispatchers import ConfigurationError, configure, get_dispatcher

BACKENDS = ("asyncio", "inline", "memory", "null", "thread")


@pytest.mark.parametrize("backend", BACKENDS)
def test_is_built_by_its_name(backend):
    """Each is known by its name, passes its check and speaks the contract."""
    configure({"targets": {"test": {"default": {"backend": backend}}}}, target="test")

    dispatcher = get_dispatcher()
    dispatcher.check(contact=True)

    assert dispatcher.name == backend
    assert dispatcher.alias == "default"
    assert type(dispatcher).is_available()


@pytest.mark.parametrize(
    ("backend", "options", "words"),
    [
        ("thread", {"workers": 0}, "workers"),
        ("thread", {"workers": True}, "workers"),
        ("thread", {"capacity": "many"}, "capacity"),
        ("thread", {"worker": 2}, "did you mean 'workers'"),
        ("memory", {"capacity": 0}, "capacity"),
        ("memory", {"remember": -1}, "remember"),
        ("asyncio", {"no_loop": "maybe"}, "no_loop"),
        ("asyncio", {"no_loop": "loop"}, r"AsyncioDispatcher\(loop=...\)"),
        ("inline", {"retries": "always"}, "retries"),
        ("null", {"capacity": 1}, "capacity"),
    ],
)
def test_wrong_options_are_refused_early(backend, options, words):
    """What cannot work is an error when it is built, and names the option."""
    table = {"backend": backend, **options}

    def build() -> None:
        configure({"targets": {"test": {"default": table}}}, target="test")
        get_dispatcher()

    with pytest.raises(ConfigurationError, match=words):
        build()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_the_class_says_is_the_most(backend):
    """C6: an instance can do no more than its class says."""
    configure({"targets": {"test": {"default": {"backend": backend}}}}, target="test")

    dispatcher = get_dispatcher()
    possible = type(dispatcher).capabilities.model_dump()
    exact = dispatcher.capabilities.model_dump()

    assert [name for name, able in exact.items() if able and not possible[name]] == []
