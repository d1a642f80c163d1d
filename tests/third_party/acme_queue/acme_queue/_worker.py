"""The worker: claims a file, and moves it as its run asks for."""

from __future__ import annotations

from dispatchers import BaseDispatcher, DeadLetter, WorkerOptions
from dispatchers.worker import BaseWorker, Work

from ._spool import File, Spool

__all__ = ["AcmeWorker"]


class AcmeWorker(BaseWorker[File]):
    """Runs the work of one folder.

    Args:
        spool: The folder.

        dispatcher: The dispatcher whose folder it is.

        options: What the command line asks for.
    """

    poll = 0.2

    def __init__(self, spool: Spool, dispatcher: BaseDispatcher, options: WorkerOptions) -> None:
        super().__init__(dispatcher, options)
        self.lease = spool.lease
        self._spool = spool

    def _take(self, wait: float) -> Work[File] | None:
        file = self._spool.claim()
        if file is None:
            return None
        return Work(file, self._spool.body(file), file.attempt, file.deliveries, file.id)

    def _renew(self, work: Work[File]) -> bool:
        return self._spool.touch(work.handle)

    def _complete(self, work: Work[File]) -> None:
        self._spool.done(work.handle)

    def _retry(self, work: Work[File], after: float, attempt: int) -> None:
        # A rename is atomic: the next attempt and the end of this one.
        self._spool.again(work.handle, after, attempt=attempt, deliveries=1)

    def _give_back(self, work: Work[File], after: float, deliveries: int) -> None:
        self._spool.again(work.handle, after, attempt=work.attempt, deliveries=deliveries + 1)

    def _dead_letter(self, work: Work[File], letter: DeadLetter) -> None:
        self._spool.bury(work.handle)
