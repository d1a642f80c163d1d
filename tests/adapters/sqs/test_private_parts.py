"""The undocumented parts of botocore that the adapter uses: docs/private-parts.md."""

from __future__ import annotations

import pytest

from dispatchers.testing import Canary

PARTS = (
    Canary("botocore.session:Session.register_component", "self", "name", "component"),
    Canary("botocore.loaders:create_loader", "search_path_string"),
)


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_private_parts_are_there(part: Canary) -> None:
    assert part.problem() is None
