"""Modules of others that end the process, or raise anything, when they are imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatchers import ConfigurationError, RegistrationError, configure, get_dispatcher
from dispatchers._config import registry
from dispatchers._config.registry import backends, load_backend
from dispatchers._stores.loading import load_object
from dispatchers.cli._surroundings import import_modules

POINTS = "[dispatchers.backends]\nattack_exits = attack_exits:Any\n"


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    info = tmp_path / "attack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: attack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    (tmp_path / "attack_exits.py").write_text("import sys\n\nsys.exit('no display')\n")
    (tmp_path / "attack_raises.py").write_text("raise ZeroDivisionError('by nothing')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.refresh()
    yield
    monkeypatch.undo()
    sys.modules.pop("attack_exits", None)
    registry.refresh()


def test_a_backend_that_exits_when_imported_is_broken() -> None:
    """A backend that ends the process at import is broken, and breaks no other."""
    states = {info.name: info.state for info in backends()}

    assert states["attack_exits"] == "broken"
    assert states["inline"] == "installed"
    with pytest.raises(RegistrationError, match=r"is broken: .* called sys\.exit\(\)"):
        load_backend("attack_exits")


def test_hooks_that_exit_when_imported_are_told() -> None:
    """The error names the setting and the module."""
    configure({"targets": {"t": {"default": "null"}}, "hooks": ["attack_exits"]}, target="t")

    with pytest.raises(ConfigurationError, match=r"hooks: importing 'attack_exits' raised"):
        get_dispatcher()


def test_task_modules_that_exit_when_imported_are_told() -> None:
    """A worker says which module it was, instead of ending without a word."""
    with pytest.raises(ConfigurationError, match=r"the task module 'attack_exits' raised"):
        import_modules(["attack_exits"])


@pytest.mark.parametrize("module", ["attack_exits", "attack_raises", "attack_nowhere"])
def test_a_store_that_cannot_be_imported_is_told(module: str) -> None:
    """Whatever importing a store raises is an error of the configuration, with its option."""
    with pytest.raises(ConfigurationError, match=f"idempotency = '{module}:store' could not be"):
        load_object("idempotency", f"{module}:store")
