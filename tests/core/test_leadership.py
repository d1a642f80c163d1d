"""Leadership by heartbeats: what each store has of it."""

from __future__ import annotations

import os

from dispatchers._runtime.leadership import Leadership


class Store(Leadership):
    """A store in which nobody else leads."""

    lease = 60.0

    def __init__(self) -> None:
        self.beats, self.forgotten = 0, 0

    def _beat_or_take_over(self) -> bool:
        self.beats += 1
        return True

    def _forget_leader(self) -> None:
        self.forgotten += 1


def test_a_heartbeat_lasts_for_a_quarter_of_the_lease() -> None:
    """What was written just now is not written again."""
    store = Store()

    assert store.lead()
    assert store.lead()
    assert store.beats == 1


def test_a_forked_child_leads_by_itself_and_gives_up_nothing_of_its_parent() -> None:
    """The parent goes on to lead, whatever its child leaves."""
    store = Store()
    assert store.lead()
    parent = store._owner

    if (child := os.fork()) == 0:
        done = 1
        try:
            store.leave()
            stayed = not store.forgotten
            store.lead()
            done = int(not (stayed and store.beats == 2 and store._owner != parent))
        finally:
            os._exit(done)

    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    store.leave()
    assert store.forgotten == 1
