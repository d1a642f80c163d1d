"""Each package of the wheel says that it is typed."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_package_is_marked_as_typed():
    """Type checkers ignore the annotations of a package without `py.typed`."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    assert [each for each in packages if not (ROOT / each / "py.typed").exists()] == []
