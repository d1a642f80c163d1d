"""A process of its own in which Django has no settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["doctor_without_settings"]


def doctor_without_settings(backend: str, folder: Path) -> str:
    """What `dispatchers doctor` says of a backend that takes its settings from Django."""
    config = f'target = "t"\n[targets.t.default]\nbackend = "{backend}"\n'
    (folder / "dispatchers.toml").write_text(config)
    environ = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}

    done = subprocess.run(
        [sys.executable, "-m", "dispatchers", "doctor", "--plain"],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    return said
