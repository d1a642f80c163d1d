"""C10: at least once, and once on request."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dispatchers import (
    Action,
    Claim,
    Discard,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    Outcome,
    Reason,
    Retry,
    RunSettings,
    arun_envelope,
    override,
    run_envelope,
    task,
)
from dispatchers._models.envelope import encode
from dispatchers._stores import memory as module
from dispatchers._stores.memory import MemoryIdempotencyStore

WAYS: dict[str, Callable[..., Outcome]] = {
    "sync": run_envelope,
    "async": lambda *args, **values: asyncio.run(arun_envelope(*args, **values)),
}


class Recorder(MemoryIdempotencyStore):
    """Notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []
        self.owners: set[str] = set()

    def claim(self, key: str, owner: str, ttl: float) -> Claim:
        self.asked.append(("claim", key))
        self.owners.add(owner)
        return super().claim(key, owner, ttl)

    def complete(self, key: str, owner: str, ttl: float) -> bool:
        self.asked.append(("complete", key))
        return super().complete(key, owner, ttl)

    def release(self, key: str, owner: str) -> bool:
        self.asked.append(("release", key))
        return super().release(key, owner)


@pytest.fixture
def store() -> Recorder:
    return Recorder()


@pytest.fixture(params=WAYS)
def run(request: pytest.FixtureRequest, store: Recorder) -> Callable[..., Outcome]:
    """Both ways of running an envelope, with the store."""

    def both(body: bytes, **values: Any) -> Outcome:
        settings = RunSettings(**{"idempotency": store, **values.pop("settings", {})})
        return WAYS[request.param](body, settings=settings, **values)

    return both


@pytest.fixture(params=[False, True], ids=["sync_task", "async_task"])
def counting(request: pytest.FixtureRequest) -> Any:
    """A task that counts its runs in `.runs`, and raises `.error` if there is one."""
    runs: list[int] = []

    def body() -> None:
        runs.append(1)
        if counting.error is not None:
            raise counting.error

    if request.param:

        @task(name="shop.count", max_attempts=2)
        async def counting() -> None:
            body()
    else:

        @task(name="shop.count", max_attempts=2)
        def counting() -> None:
            body()

    counting.runs, counting.error = runs, None
    return counting


def test_work_that_was_done_is_not_done_again(run, counting):
    """A repeated delivery is settled without a run."""
    body = encode(counting.request())

    first, second = run(body), run(body, deliveries=2)

    assert (first.action, first.reason) == (Action.DONE, Reason.SUCCEEDED)
    assert (second.action, second.reason) == (Action.DONE, Reason.DUPLICATE)
    assert len(counting.runs) == 1


def test_the_same_key_is_the_same_work(run, counting):
    """Another id and another attempt are no other work."""
    keyed = counting.options(idempotency_key="w-42")

    first, second = run(encode(keyed.request())), run(encode(keyed.request()))

    assert second.reason is Reason.DUPLICATE
    assert first.request_id != second.request_id
    assert len(counting.runs) == 1


def test_a_key_with_other_arguments_is_a_conflict(run):
    """C10: a duplicate would leave the second call undone in silence: it is dead-lettered."""
    ran: list[str] = []

    @task(name="shop.keyed_mail")
    def mail(address: str) -> None:
        ran.append(address)

    keyed = mail.options(idempotency_key="w-42")
    bodies = [encode(keyed.request(address)) for address in ("a", "b", "a")]
    outcomes = [run(body) for body in bodies]

    assert [each.reason for each in outcomes] == [
        Reason.SUCCEEDED,
        Reason.CONFLICT,
        Reason.DUPLICATE,
    ]
    assert outcomes[1].action is Action.DEAD
    assert "other arguments" in outcomes[1].error.message
    assert ran == ["a"]


@pytest.mark.parametrize("address", ["a", "b"])
def test_what_an_earlier_version_completed_stays_a_duplicate(run, store, address):
    """C10: 0.1.0 completed the key alone, so that nothing is known of the arguments."""

    @task(name="shop.keyed_before")
    def mail(address: str) -> None:
        raise AssertionError("it ran before")

    store.claim("shop.keyed_before w-42", "0.1.0", 60)
    store.complete("shop.keyed_before w-42", "0.1.0", 60)

    outcome = run(encode(mail.options(idempotency_key="w-42").request(address)))

    assert (outcome.action, outcome.reason) == (Action.DONE, Reason.DUPLICATE)


def test_arguments_that_were_not_remembered_are_no_conflict(run, store, monkeypatch):
    """C10: a claim on them that a dead worker left behind makes no repetition other work."""

    @task(name="shop.keyed_left")
    def left(number: int) -> None: ...

    body = encode(left.options(idempotency_key="k").request(1))
    claim = store.claim
    busy = lambda key, *rest: Claim("busy", 60.0) if key.count(" ") == 2 else claim(key, *rest)
    complete = store.complete
    monkeypatch.setattr(store, "claim", busy)
    monkeypatch.setattr(
        store, "complete", lambda key, *rest: key.count(" ") == 1 and complete(key, *rest)
    )
    first = run(body)
    monkeypatch.undo()

    assert [first.reason, run(body).reason] == [Reason.SUCCEEDED, Reason.DUPLICATE]


def test_a_death_between_the_two_keys_repeats_the_run(run, store, monkeypatch):
    """C10: the arguments' key is completed first, so that no repetition looks like other work."""
    ran: list[int] = []

    @task(name="shop.keyed_twice")
    def twice(number: int) -> None:
        ran.append(number)

    body = encode(twice.options(idempotency_key="k").request(1))
    complete = store.complete
    dead = lambda key, owner, ttl: len(key.split()) == 3 and complete(key, owner, ttl)
    monkeypatch.setattr(store, "complete", dead)
    run(body)
    monkeypatch.undo()
    store.release("shop.keyed_twice k", next(iter(store.owners)))

    reasons = [run(body).reason for _ in range(2)]

    assert reasons == [Reason.SUCCEEDED, Reason.DUPLICATE]
    assert ran == [1, 1]


def test_without_a_key_the_request_s_id_serves(run, counting):
    """Two requests are two pieces of work; the same one repeated is one."""
    one, two = encode(counting.request()), encode(counting.request())

    reasons = [run(body).reason for body in (one, two, one)]

    assert reasons == [Reason.SUCCEEDED, Reason.SUCCEEDED, Reason.DUPLICATE]


def test_keys_are_scoped_by_task(run, counting, send_welcome):
    """Two tasks may use the same key."""
    first = run(encode(counting.options(idempotency_key="k").request()))
    second = run(encode(send_welcome.options(idempotency_key="k").request(1)))

    assert (first.reason, second.reason) == (Reason.SUCCEEDED, Reason.SUCCEEDED)


def test_task_and_key_cannot_run_together(run):
    """`a` with the key `b:c` is not `a:b` with the key `c`."""
    runs: list[str] = []

    @task(name="a")
    def first() -> None:
        runs.append("a")

    @task(name="a:b")
    def second() -> None:
        runs.append("a:b")

    run(encode(first.options(idempotency_key="b:c").request()))
    run(encode(second.options(idempotency_key="c").request()))

    assert runs == ["a", "a:b"]


def test_a_renamed_task_keeps_its_keys(run):
    """Work under the old name is the same work."""
    runs: list[int] = []

    @task(name="shop.new", former_names=("shop.old",))
    def renamed() -> None:
        runs.append(1)

    for name in ("shop.old", "shop.new"):
        run(encode(DispatchRequest(task=name, idempotency_key="k")))

    assert runs == [1]


def test_a_failed_run_gives_its_key_back(run, counting, store):
    """The next attempt can run."""
    body = encode(counting.request())

    counting.error = OSError()
    first = run(body)
    counting.error = None
    second = run(body, attempt=2)

    assert (first.action, second.reason) == (Action.RETRY, Reason.SUCCEEDED)
    assert [what for what, _ in store.asked] == ["claim", "release", "claim", "complete"]


def test_dead_work_gives_its_key_back(run, counting):
    """A replay of the dead letter can run."""
    body = encode(counting.request())

    counting.error = TypeError()
    dead = run(body)
    counting.error = None

    assert dead.action is Action.DEAD
    assert run(body).reason is Reason.SUCCEEDED


def test_a_failure_that_is_only_logged_gives_the_key_back(run, counting):
    """It is settled, but not done: whoever dispatches it again gets another try."""
    body = encode(counting.request())
    settings = {"on_handler_error": "log"}

    counting.error = TypeError()
    logged = run(body, settings=settings)
    counting.error = None

    assert (logged.action, logged.ok) == (Action.DONE, False)
    assert run(body, settings=settings).reason is Reason.SUCCEEDED


def test_discarded_work_is_remembered(run, counting):
    """It was not wanted, and is not wanted again."""
    body = encode(counting.request())

    counting.error = Discard()
    outcomes = [run(body).reason, run(body).reason]

    assert outcomes == [Reason.DISCARDED, Reason.DUPLICATE]


def test_work_that_is_given_back_gives_its_key_back(run, counting):
    """A worker that stops must not keep others from it."""
    body = encode(counting.request())

    counting.error = Retry()
    stopped = run(body, stopping=lambda: True)
    counting.error = None

    assert stopped.reason is Reason.STOPPING
    assert run(body).reason is Reason.SUCCEEDED


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_an_interrupted_run_gives_its_key_back(run, counting, error):
    """What passes through leaves no claim behind."""
    body = encode(counting.request())

    counting.error = error
    with pytest.raises(type(error)):
        run(body)
    counting.error = None

    assert run(body).reason is Reason.SUCCEEDED


def test_a_live_claim_hands_the_delivery_back(run, counting, store):
    """Never acknowledged, never an attempt; until the claim can have expired."""
    body = encode(counting.options(idempotency_key="k").request())
    run(body)
    (_, key), *_ = store.asked
    store._entries.clear()
    store.claim(key, "somebody else", 30.0)

    outcome = run(body, attempt=2)

    assert (outcome.action, outcome.reason) == (Action.RETURN, Reason.IN_FLIGHT)
    assert 29 < outcome.after <= 30
    assert outcome.attempt == 2
    assert len(counting.runs) == 1


def test_two_workers_run_the_same_key_once(store):
    """The second is handed back while the first runs, and settled after it."""
    begun, release = threading.Event(), threading.Event()
    settings = RunSettings(idempotency=store)

    @task(name="shop.slow")
    def slow() -> None:
        begun.set()
        assert release.wait(20)

    body = encode(slow.request())
    outcomes: list[Outcome] = []
    first = threading.Thread(target=lambda: outcomes.append(run_envelope(body, settings=settings)))
    first.start()
    assert begun.wait(20)
    meanwhile = run_envelope(body, settings=settings)
    release.set()
    first.join()
    afterwards = run_envelope(body, settings=settings)

    assert meanwhile.reason is Reason.IN_FLIGHT
    assert outcomes[0].reason is Reason.SUCCEEDED
    assert afterwards.reason is Reason.DUPLICATE


def test_a_claim_is_renewed_while_the_handler_runs(store):
    """Longer than the claim lasts by itself."""
    renewed = threading.Semaphore(0)

    class Renewing(Recorder):
        """Its claims last longer than a busy machine lets none of them be renewed."""

        def claim(self, key: str, owner: str, ttl: float) -> Claim:
            return super().claim(key, owner, 60)

        def renew(self, key: str, owner: str, ttl: float) -> bool:
            renewed.release()
            return super().renew(key, owner, 60)

    @task(name="shop.slow")
    def slow() -> None:
        assert all(renewed.acquire(timeout=20) for _ in range(4))  # each a third of the claim

    settings = RunSettings(idempotency=Renewing(), claim_ttl=0.3)
    body = encode(slow.request())

    assert run_envelope(body, settings=settings).reason is Reason.SUCCEEDED
    assert run_envelope(body, settings=settings).reason is Reason.DUPLICATE


def test_a_lost_claim_refuses_the_result(store):
    """Another owner has it by now."""

    class Losing(Recorder):
        def renew(self, key: str, owner: str, ttl: float) -> bool:
            return False

    @task(name="shop.slow")
    def slow() -> None:
        from dispatchers import current_run

        waiting = threading.Event()
        while not current_run().should_stop:
            waiting.wait(0.002)

    settings = RunSettings(idempotency=Losing(), claim_ttl=0.03)

    outcome = run_envelope(encode(slow.request()), settings=settings)

    assert (outcome.action, outcome.reason) == (Action.RETURN, Reason.LEASE_LOST)


def test_each_run_is_an_owner_of_its_own(run, counting, store):
    """A worker that died and came back is not the owner it was."""
    for _ in range(3):
        run(encode(counting.request()))

    assert len(store.owners) == 3


class Broken:
    """A store that cannot be reached."""

    def __init__(self, fails: str, error: Exception) -> None:
        self.fails, self.error = fails, error
        self.inner = MemoryIdempotencyStore()

    def __getattr__(self, name: str) -> Any:
        if name == self.fails:
            return self._raise
        return getattr(self.inner, name)

    def _raise(self, *args: object) -> Any:
        raise self.error


def test_a_store_that_cannot_be_asked_hands_the_work_back(run, counting, log):
    """Nobody knows whether it ran."""
    store = Broken("claim", ConnectionError("password s3cret"))

    outcome = run(encode(counting.request()), settings={"idempotency": store})

    assert (outcome.action, outcome.reason) == (Action.RETURN, Reason.STORE_UNAVAILABLE)
    assert outcome.after > 0
    assert counting.runs == []
    assert any("idempotency store: ConnectionError" in text for _, text in log())
    assert "s3cret" not in str(log())


@pytest.mark.parametrize("answer", [None, 5, (), ("claimed", 1, 2)])
def test_a_store_that_answers_nonsense_hands_the_work_back(run, counting, answer):
    """An outside author's mistake crashes no worker."""

    class Odd(MemoryIdempotencyStore):
        def claim(self, key: str, owner: str, ttl: float) -> Any:
            return answer

    outcome = run(encode(counting.request()), settings={"idempotency": Odd()})

    assert outcome.reason is Reason.STORE_UNAVAILABLE
    assert counting.runs == []


@pytest.mark.parametrize("error", [None, OSError()])
@pytest.mark.parametrize("fails", ["complete", "release"])
def test_a_store_that_fails_afterwards_changes_no_outcome(run, counting, log, fails, error):
    """The run is over; the claim runs out by itself."""
    counting.error = error
    store = Broken(fails, ConnectionError())

    outcome = run(encode(counting.request()), settings={"idempotency": store})

    assert outcome.reason is (Reason.FAILED if error else Reason.SUCCEEDED)
    assert len(counting.runs) == 1


def test_a_store_never_blocks_the_event_loop(counting):
    """C8: it may be a file or a server."""
    ticked = threading.Event()
    steps: list[bool] = []

    class Slow(MemoryIdempotencyStore):
        def claim(self, key: str, owner: str, ttl: float) -> Claim:
            steps.append(ticked.wait(20))
            return super().claim(key, owner, ttl)

        def complete(self, key: str, owner: str, ttl: float) -> bool:
            ticked.clear()
            asyncio.run_coroutine_threadsafe(tick(), loop[0])
            steps.append(ticked.wait(20))
            return super().complete(key, owner, ttl)

    async def tick() -> None:
        ticked.set()

    loop: list[asyncio.AbstractEventLoop] = []

    async def main() -> Outcome:
        loop.append(asyncio.get_running_loop())
        running = asyncio.ensure_future(
            arun_envelope(encode(counting.request()), settings=RunSettings(idempotency=Slow()))
        )
        await asyncio.sleep(0.01)
        ticked.set()
        return await running

    assert asyncio.run(main()).ok
    assert steps == [True, True]


# Through a dispatcher


def test_a_dispatcher_s_store_makes_repeating_safe(counting):
    """`idempotency = "memory"`: the second dispatch of the same request is a duplicate."""
    from dispatchers import get_dispatcher

    request = counting.request()
    with override(default={"backend": "inline", "idempotency": "memory"}):
        statuses = [get_dispatcher().dispatch(request).status for _ in range(2)]

    assert statuses == [DispatchStatus.EXECUTED, DispatchStatus.DUPLICATE]
    assert len(counting.runs) == 1


def test_a_claim_in_flight_is_a_conflict_in_process(counting):
    """C4: what runs elsewhere cannot be waited for in the call."""

    class Busy(MemoryIdempotencyStore):
        def claim(self, key: str, owner: str, ttl: float) -> Claim:
            return Claim("busy", 5.0)

    from dispatchers.backends.inline import InlineDispatcher

    made = InlineDispatcher()
    made._settings = RunSettings(idempotency=Busy())

    answer = made.dispatch(counting.request())

    assert answer.status is DispatchStatus.REJECTED
    assert answer.error.category is ErrorCategory.CONFLICT


# The memory store


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def test_a_claim_ends_when_it_is_not_renewed(clock):
    """The owner may be dead."""
    store = MemoryIdempotencyStore()
    store.claim("k", "a", 10)

    clock.now += 4
    busy = store.claim("k", "b", 10)
    clock.now += 6
    free = store.claim("k", "b", 10)

    assert busy == Claim("busy", 6.0)
    assert free == Claim("claimed")


def test_a_renewed_claim_lasts(clock):
    """As long as its owner lives."""
    store = MemoryIdempotencyStore()
    store.claim("k", "a", 10)

    for _ in range(5):
        clock.now += 9
        assert store.renew("k", "a", 10)

    assert store.claim("k", "b", 10).state == "busy"


def test_only_the_owner_renews_completes_and_releases(clock):
    """Never another owner, and nobody what has expired or is done."""
    store = MemoryIdempotencyStore()
    store.claim("k", "a", 10)

    strangers = [store.renew("k", "b", 9), store.complete("k", "b", 9), store.release("k", "b")]
    clock.now += 10
    expired = [store.renew("k", "a", 9), store.complete("k", "a", 9), store.release("k", "a")]
    store.claim("d", "a", 10)
    store.complete("d", "a", 10)
    done = [store.renew("d", "a", 9), store.complete("d", "a", 9), store.release("d", "a")]

    assert strangers == expired == done == [False] * 3
    assert store.claim("d", "b", 10) == Claim("done")


def test_the_owner_may_claim_again(clock):
    """An answer that was lost is asked for again."""
    store = MemoryIdempotencyStore()

    assert store.claim("k", "a", 10) == store.claim("k", "a", 10) == Claim("claimed")


def test_what_is_done_is_remembered_for_a_while(clock):
    """Then the key is free: nothing grows for ever."""
    store = MemoryIdempotencyStore()
    store.claim("k", "a", 10)
    store.complete("k", "a", 60)

    clock.now += 59
    remembered = store.claim("k", "b", 10)
    clock.now += 1
    forgotten = store.claim("k", "b", 10)

    assert (remembered.state, forgotten.state) == ("done", "claimed")


def test_the_memory_store_forgets_what_expired(clock):
    """Bounded growth."""
    store = MemoryIdempotencyStore()
    for number in range(5000):
        clock.now += 1
        store.claim(str(number), "a", 10)

    assert len(store._entries) < 2048


def test_one_of_many_threads_gets_the_claim():
    """C8: exactly one."""
    store = MemoryIdempotencyStore()
    begun = threading.Barrier(8)
    states: list[str] = []

    def work(owner: int) -> None:
        begun.wait(20)
        states.extend(store.claim(str(key), str(owner), 60).state for key in range(50))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert states.count("claimed") == 50
    assert states.count("busy") == 350


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_was_forked_under_the_lock_is_not_stuck():
    """C8: a lock that another thread held at the fork is held by nobody in the child."""
    store = MemoryIdempotencyStore()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store._lock:
            held.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(20)
    pid = os.fork()
    if pid == 0:
        fine = False
        try:
            fine = store.claim("k", "child", 60).state == "claimed"
        finally:
            os._exit(0 if fine else 1)
    _, status = os.waitpid(pid, 0)
    done.set()
    thread.join()

    assert os.waitstatus_to_exitcode(status) == 0
