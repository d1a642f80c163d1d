"""Formats of a worker's log: lines for people, or one JSON object per record."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

__all__ = ["JSON", "JsonFormatter", "format_in_force", "log_to_stderr"]

TEXT = "%(asctime)s %(levelname)s %(message)s"


JSON = "json"
"""Stands for `JsonFormatter` where a format is named by text."""


STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
"""Attributes that every record has; the others were given as `extra`."""


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON, with what was given as `extra` beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        facts: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        facts |= {k: v for k, v in record.__dict__.items() if k not in STANDARD and k not in facts}
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return json.dumps(facts, ensure_ascii=False, default=str)


class LineFormatter(logging.Formatter):
    """Writes a record as one line; makes the text of each second once, not for each record."""

    _kept = (0, "")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """Return the time as `logging` writes it."""
        second, text = self._kept
        if second != int(record.created):
            # Both in one assignment, as other threads format, too.
            text = super().formatTime(record, self.default_time_format)
            self._kept = int(record.created), text
        return f"{text},{int(record.msecs):03d}"


def log_to_stderr(level: int | str, form: str | None = None) -> None:
    """Let records reach standard error, unless the program has seen to its log already.

    Args:
        level: The lowest that is written.

        form: A format of `logging`, `JSON`, or None for plain lines.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == JSON else LineFormatter(form or TEXT))
    # Does nothing where the root logger has a handler: the program's choice stays.
    logging.basicConfig(level=level, handlers=[handler])


def format_in_force() -> str | None:
    """Return the format of this process's log, for a process that is to write the same."""
    formats = [each.formatter for each in logging.getLogger().handlers if each.formatter]
    if not formats:
        return None
    return JSON if isinstance(formats[0], JsonFormatter) else formats[0]._fmt
