"""Type-check the Python blocks of the documentation: `python docs/_types.py [PAGE ...]`.

Each page becomes a folder: a block that is a file is that file, the others are one module in
their order, as a reader would type them. mypy (strict) and pyright check the folders.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w./-]+\.py)\n")
MYPY = (
    *("--strict", "--no-error-summary", "--explicit-package-bases"),
    *("--disable-error-code", "import-untyped"),  # celery and rq come without types
    *("--disable-error-code", "untyped-decorator"),  # theirs
    *("--allow-untyped-defs", "--allow-untyped-calls"),  # pytest's fixtures are seldom annotated
)

SHOP = """from dispatchers import task


@task(name="shop.send_welcome")
def send_welcome(user_id: int) -> None: ...


def sign_up(email: str) -> int: ...
"""
"""The shop that the short READMEs take as given."""


def pages() -> list[Path]:
    """Return every page that readers see."""
    parts = ("README.md", "docs/*.md", "adapters/*/README.md", "contrib/*/README.md")
    return [page for part in parts for page in sorted(ROOT.glob(part))]


def write(page: Path, folder: Path) -> None:
    """Write the blocks of a page as the files that they are."""
    body: list[str] = []
    for source in BLOCK.findall(page.read_text()):
        if file := FILE.match(source):
            path = folder / file[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        else:
            body.append(source)
    (folder / "page.py").write_text("\n".join(body))
    (folder / "acme_search_postgres.py").touch()  # an implementation, in the page for libraries
    for name in ("__init__", "tasks"):
        path = folder / "shop" / f"{name}.py"
        if not path.exists() and not (folder / "shop.py").exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(SHOP.replace(": ...", ": raise NotImplementedError"))


def mypy(folder: Path, cache: Path) -> list[str]:
    """Return what mypy finds in a page's folder."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *MYPY, "--cache-dir", str(cache), "."],
        cwd=folder,
        env={"MYPYPATH": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()


def pyright(folders: list[Path], top: Path) -> list[str]:
    """Return what pyright finds in all folders, each a root of its own."""
    roots = [{"root": folder.name, "extraPaths": [folder.name]} for folder in folders]
    settings = {"include": ["."], "executionEnvironments": roots, "typeCheckingMode": "standard"}
    settings |= {"reportMissingTypeStubs": False, "reportMissingModuleSource": False}
    (top / "pyrightconfig.json").write_text(json.dumps(settings))
    command = ["basedpyright", "--level", "error", "-p", str(top), "--pythonpath", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = done.stdout.replace(str(top), "").splitlines()
    return [row.strip() for row in rows if "error:" in row]


def main(names: list[str]) -> int:
    """Check the named pages, or all."""
    chosen = [ROOT / name for name in names] or pages()
    with TemporaryDirectory() as name:
        top = Path(name)
        folders: list[Path] = []
        found: list[str] = []
        for page in chosen:
            title = re.sub(r"\W+", "_", str(page.relative_to(ROOT).with_suffix("")))
            folder = top / title
            folder.mkdir()
            write(page, folder)
            folders.append(folder)
            found += [f"{title}: mypy: {line}" for line in mypy(folder, top / ".mypy")]
        found += pyright(folders, top)
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
