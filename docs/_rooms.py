"""Draw the rooms of the core from its imports: `python docs/_rooms.py` writes `docs/rooms.svg`.

A room is a folder or a public module of `dispatchers/`. An arrow says "imports"; arrows that
follow from others are left out. Late imports and those for type checkers count as well.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "dispatchers"
PICTURE = ROOT / "docs" / "rooms.svg"
WIDTH, HEIGHT, GAP, STEP = 150, 34, 18, 72
"""Pixels: a box, the gap between boxes of a floor, and from one floor to the next."""
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1b1f24; text-anchor: middle; }
  rect { fill: #f6f8fa; stroke: #57606a; }
  .public rect { fill: #ddf4ff; stroke: #0969da; }
  path { fill: none; stroke: #8c959f; }
  marker path { fill: #8c959f; stroke: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    rect { fill: #161b22; stroke: #8b949e; }
    .public rect { fill: #0c2d6b; stroke: #58a6ff; }
  }
"""

Graph = Mapping[str, set[str]]


def rooms() -> dict[str, list[Path]]:
    """Return the files of each room; the package itself is the room `dispatchers`."""
    found: dict[str, list[Path]] = {}
    for path in sorted(CORE.rglob("*.py")):
        parts = path.relative_to(CORE).with_suffix("").parts
        room = "dispatchers" if parts in (("__init__",), ("__main__",)) else parts[0]
        found.setdefault(room, []).append(path)
    return found


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names of the core that a file imports."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.startswith("dispatchers."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            if module.split(".")[0] == "dispatchers":
                yield from (f"{module}.{each.name}" for each in node.names)


def graph(files: Mapping[str, list[Path]]) -> dict[str, set[str]]:
    """Return which rooms each room imports."""
    found: dict[str, set[str]] = {room: set() for room in files}
    for room, paths in files.items():
        for name in (name for path in paths for name in imported(path)):
            target = name.split(".")[1]
            found[room].add(target if target in files else "dispatchers")
        found[room].discard(room)
    found.pop("dispatchers")  # it re-exports: every room would point at it, or it at all
    return {room: targets - {"dispatchers"} for room, targets in found.items()}


def floors(arrows: Graph) -> dict[str, int]:
    """Return each room's floor: one above the highest room that it imports.

    Raises:
        RecursionError: Rooms import each other in a circle.
    """

    def floor(room: str) -> int:
        return 1 + max((floor(each) for each in arrows[room]), default=-1)

    return {room: floor(room) for room in arrows}


def reduced(arrows: Graph) -> Iterator[tuple[str, str]]:
    """Yield the arrows that do not follow from others."""

    def reach(room: str) -> set[str]:
        return set().union(*({each} | reach(each) for each in arrows[room]))

    for room, targets in arrows.items():
        for target in sorted(targets):
            if not any(target in reach(other) for other in targets - {target}):
                yield room, target


def drawn(files: Mapping[str, list[Path]]) -> str:
    """Return the picture."""
    arrows = graph(files)
    level = floors(arrows)
    top = max(level.values())
    rows = [sorted(r for r in arrows if level[r] == top - i) for i in range(top + 1)]
    widest = max(map(len, rows))
    width = widest * (WIDTH + GAP) + GAP
    spots: dict[str, tuple[float, float]] = {}
    for place, row in enumerate(rows):
        left = (width - len(row) * (WIDTH + GAP) + GAP) / 2
        for index, room in enumerate(row):
            spots[room] = (left + index * (WIDTH + GAP), GAP + place * STEP)
    height = len(rows) * STEP
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label="The rooms of the core">'
        ),
        f"<style>{STYLE}</style>",
        (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
        ),
        *(_arrow(spots[a], spots[b]) for a, b in reduced(arrows)),
        *(_box(room, spots[room]) for room in spots),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    x1, y1 = start[0] + WIDTH / 2, start[1] + HEIGHT
    x2, y2 = end[0] + WIDTH / 2, end[1] - 2
    bend = (y2 - y1) / 2
    curve = f"M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"
    return f'<path d="{curve}" marker-end="url(#tip)"/>'


def _box(room: str, spot: tuple[float, float]) -> str:
    x, y = spot
    kind = "private" if room.startswith("_") else "public"
    middle = x + WIDTH / 2
    return (
        f'<g class="{kind}"><rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<text x="{middle:g}" y="{y + 22:g}">{escape(room)}</text></g>'
    )


def main() -> int:
    """Write the picture; with `--check`, say whether it is up to date instead."""
    picture = drawn(rooms())
    if "--check" in sys.argv:
        return 0 if PICTURE.exists() and PICTURE.read_text() == picture else 1
    PICTURE.write_text(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
