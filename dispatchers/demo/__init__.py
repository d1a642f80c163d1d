"""`dispatchers demo`: real work on real input, with nothing installed and nothing configured.

Every file of the running Python's standard library is indexed by a task of its own, through the
`sqlite` backend, by worker processes that the demo starts. `tasks.py` is what an application
writes; the rest shows what happens.
"""

from ._run import run

__all__ = ["run"]
