"""The file that runs write into, and tests read meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

from dispatchers.testing import Journal
from dispatchers.testing.journal import Entry


def test_a_line_that_is_there_in_part_is_not_read_yet(tmp_path: Path) -> None:
    """A write that crosses a page of the system's may be seen in part."""
    path = tmp_path / "journal"
    line = json.dumps(Entry("1", "shop.t", 1, 1, "a", 0.0, 1)._asdict())
    path.write_text(f"{line}\n{line[:20]}")

    assert Journal(path).texts == ["a"]
