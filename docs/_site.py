"""Bring the pages that lie outside `docs/` into the site: hooks of `mkdocs.yml`.

READMEs stay beside the code that they describe; the site shows them under names of their own.
Links are followed in the repository: to a page of the site, or, for code, they become plain text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def outside() -> dict[str, str]:
    """Return the pages outside `docs/`, by their path in the repository, and their name here."""
    found = {"benchmarks/README.md": "benchmarks.md", "CHANGELOG.md": "changelog.md"}
    for folder in ("adapters", "contrib"):
        for page in sorted(ROOT.glob(f"{folder}/*/README.md")):
            found[str(page.relative_to(ROOT))] = f"{folder}/{page.parent.name}.md"
    return found


PAGES = outside()
SOURCES = {name: path for path, name in PAGES.items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside."""
    for path, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links lead to pages of the site."""
    uri = page.file.src_uri
    source = SOURCES.get(uri, f"docs/{uri}")
    return LINK.sub(lambda found: _link(found[1], found[2], source, uri), markdown)


def _link(text: str, target: str, source: str, uri: str) -> str:
    if "://" in target or target.startswith(("#", "mailto:")):
        return f"[{text}]({target})"
    path, _, anchor = target.partition("#")
    wanted = os.path.normpath(os.path.join(os.path.dirname(source), path))  # noqa: PTH118, PTH120
    name = PAGES.get(wanted) or (wanted.removeprefix("docs/") if wanted.startswith("docs/") else "")
    if not name:
        return text
    here = os.path.dirname(uri) or "."  # noqa: PTH120
    return f"[{text}]({os.path.relpath(name, here)}{'#' * bool(anchor)}{anchor})"
