"""The exit codes, for pipelines and cron."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["EXPLAINED", "Exit"]


class Exit(IntEnum):
    """Exit codes of the program."""

    OK = 0
    """Done, and nothing is wrong."""
    PROBLEMS = 1
    """A problem was found, or work was not handed over."""
    USAGE = 2
    """The command line or the configuration cannot work."""
    UNKNOWN = 3
    """`dispatch` cannot say whether the work was handed over."""
    INTERRUPTED = 130
    """Ctrl-C."""


EXPLAINED = """\
exit codes:
  0    done, and nothing is wrong
  1    a problem was found, or the work was not handed over
  2    the command line or the configuration cannot work
  3    dispatch: the work may or may not have been handed over
  130  interrupted by Ctrl-C
"""
