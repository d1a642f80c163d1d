"""asyncio's own functions in a workflow, as they stand: each replayed from nothing all the time."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta

import pytest

from dispatchers import StepError, task
from dispatchers.workflows import Signal, local

approval = Signal("approval", bool)


class CardDeclinedError(Exception):
    pass


@task(name="wf.double")
def double(n: int) -> int:
    return 2 * n


@task(name="wf.ship")
async def ship(n: int) -> str:
    return f"parcel {n}"


@task(name="wf.charge")
def charge(n: int) -> int:
    raise CardDeclinedError(f"card {n}")


def test_steps_follow_each_other(story):
    """One after the other, each with the result of the one before."""

    async def flow():
        first = await double.step(1)
        return await double.step(first), await ship(3), await local(str, 7)

    told = story(flow).play()

    assert told.result == [4, "parcel 3", "7"]
    assert told.asked == ["step wf.double", "step wf.double", "step wf.ship", "local str"]


def test_a_step_begins_when_it_is_made(story):
    """Two that are made before the first is awaited run together."""

    async def flow():
        one, two = double.step(1), double.step(2)
        return [await one, await two]

    told = story(flow)

    assert told.steps == [1, 2]
    assert told.run_step(2).run_step(1).result == [2, 4]


def test_gather_waits_for_all(story):
    """In the order in which they were given, whatever came first."""

    async def flow():
        return await asyncio.gather(*[double.step(n) for n in range(3)], ship(3))

    told = story(flow)

    assert told.steps == [1, 2, 3, 4]
    assert told.run_step(3).run_step(1).run_step(4).run_step(2).result == [0, 2, 4, "parcel 3"]


def test_gather_with_exceptions(story):
    """Failures are results where that is asked for."""

    async def flow():
        got = await asyncio.gather(double.step(1), charge.step(2), return_exceptions=True)
        return [got[0], str(got[1])]

    words = f"step wf.charge (2): {__name__}.CardDeclinedError: card 2"
    assert story(flow).play().result == [2, words]


def test_a_task_group(story):
    """Its tasks are steps' callers, and their results are there at its end."""

    async def flow():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ship(n)) for n in range(3)]
        return [each.result() for each in tasks]

    told = story(flow)

    assert told.steps == [1, 2, 3]
    assert told.play().result == ["parcel 0", "parcel 1", "parcel 2"]


def test_the_first_failure_of_a_group_cancels_its_siblings(story):
    """As in asyncio: the others get `CancelledError`, the group raises."""

    async def waits(seen):
        try:
            await double.step(1)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def flow():
        seen = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(waits(seen))
                group.create_task(_charged())
        except* StepError as failed:
            seen += [exc.message for exc in failed.exceptions]
        return seen

    async def _charged():
        await charge.step(2)

    assert story(flow).run_step(2).result == ["cancelled", "card 2"]


def test_a_timeout_fires(story):
    """After as many seconds as the journal says."""

    async def flow():
        try:
            async with asyncio.timeout(timedelta(days=3).total_seconds()):
                await approval.receive()
        except TimeoutError:
            return "late"

    told = story(flow)

    assert told.live.wake_at == 1_000_000.0 + 3 * 86400
    assert told.fire().result == "late"


def test_a_timeout_does_not_fire(story):
    """Its timer is not awaited any more, and that it is due says nothing."""

    async def flow():
        async with asyncio.timeout(60):
            first = await double.step(1)
        return first, await double.step(2)

    told = story(flow).run_step(2)

    assert told.live.wake_at is None
    assert told.fire(1).run_step(3).result == [2, 4]


def test_nested_timeouts(story):
    """The inner one does not stop what is outside of it."""

    async def flow():
        seen = []
        async with asyncio.timeout(100):
            try:
                async with asyncio.timeout(10):
                    await approval.receive()
            except TimeoutError:
                seen.append("inner")
            seen.append(await double.step(1))
        return seen

    assert story(flow).fire().play().result == ["inner", 2]


def test_the_outer_timeout_of_two(story):
    """It ends the inner one as well."""

    async def flow():
        try:
            async with asyncio.timeout(10):
                async with asyncio.timeout(100):
                    await approval.receive()
        except TimeoutError:
            return "outer"

    assert story(flow).fire().result == "outer"


def test_wait_for_the_first(story):
    """The rest goes on."""

    async def flow():
        left = {double.step(1), double.step(2)}
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        return [await done.pop(), await left.pop()]

    assert story(flow).run_step(2).run_step(1).result == [4, 2]


def test_wait_for_an_exception(story):
    """It is seen before the rest is done."""

    async def flow():
        steps = [double.step(1), charge.step(2), double.step(3)]
        done, left = await asyncio.wait(steps, return_when=asyncio.FIRST_EXCEPTION)
        return [steps.index(each) for each in done], len(left)

    assert story(flow).run_step(1).run_step(2).result == [[0, 1], 1]


def test_wait_with_a_timeout(story):
    """What is not done then is not cancelled."""

    async def flow():
        done, left = await asyncio.wait([double.step(1), double.step(2)], timeout=5)
        return len(done), [await each for each in left]

    told = story(flow).run_step(1).fire()

    assert told.run_step(2).result == [1, [4]]


def test_wait_for(story):
    """In time, and too late."""

    async def flow():
        first = await asyncio.wait_for(double.step(1), 5)
        try:
            await asyncio.wait_for(double.step(2), 5)
        except TimeoutError:
            return [first, "late"]

    assert story(flow).run_step(1).fire(4).result == [2, "late"]


def test_a_shielded_step_outlives_its_caller(story):
    """Its result can be awaited afterwards."""

    async def flow():
        step = double.step(1)
        try:
            async with asyncio.timeout(5):
                await asyncio.shield(step)
        except TimeoutError:
            return await step

    assert story(flow).fire().run_step(1).result == 2


def test_a_queue_between_tasks(story):
    """A producer and two consumers, bounded."""

    async def consumer(queue, seen):
        while (n := await queue.get()) is not None:
            seen.append(await double.step(n))

    async def flow():
        queue, seen = asyncio.Queue(2), []
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(consumer(queue, seen))
            for n in [1, 2, 3, 4, None, None]:
                await queue.put(n)
        return seen

    assert story(flow).run_step(2).run_step(1).play().result == [4, 2, 6, 8]


def test_a_lock(story):
    """One at a time, in the order of asking."""

    async def flow():
        lock, seen = asyncio.Lock(), []

        async def within(n):
            async with lock:
                seen.append(await double.step(n))

        await asyncio.gather(within(1), within(2), within(3))
        return seen

    told = story(flow)

    assert told.steps == [1]
    assert told.play().result == [2, 4, 6]


def test_a_semaphore(story):
    """No more steps at once than it lets through."""

    async def flow():
        most = asyncio.Semaphore(2)

        async def within(n):
            async with most:
                return await double.step(n)

        return await asyncio.gather(*map(within, range(5)))

    told = story(flow)

    assert told.steps == [1, 2]
    assert told.run_step(2).steps == [1, 3]
    assert told.play().result == [0, 2, 4, 6, 8]


def test_an_event_and_a_condition(story):
    """Tasks tell each other."""

    async def flow():
        event, condition, seen = asyncio.Event(), asyncio.Condition(), []

        async def waits():
            await event.wait()
            async with condition:
                await condition.wait_for(lambda: len(seen) == 1)
                seen.append("second")

        task_ = asyncio.create_task(waits())
        await double.step(1)
        event.set()
        await asyncio.sleep(0)
        async with condition:
            seen.append("first")
            condition.notify_all()
        await task_
        return seen

    assert story(flow).play().result == ["first", "second"]


def test_a_barrier(story):
    """All are let go at once."""

    async def flow():
        barrier = asyncio.Barrier(2)

        async def party(n):
            await double.step(n)
            async with barrier as place:
                return place

        return sorted(await asyncio.gather(party(1), party(2)))

    assert story(flow).play().result == [0, 1]


@pytest.mark.parametrize("seconds", [0, -1])
def test_no_sleep_needs_no_timer(story, seconds):
    """It lets the others run, and asks for nothing."""

    async def flow():
        await asyncio.sleep(seconds)
        return await double.step(1)

    assert story(flow).asked == ["step wf.double"]


def test_a_sleep_of_ten_years(story):
    """A timer as any other."""

    async def flow():
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(timedelta(days=3650).total_seconds())
        return asyncio.get_running_loop().time() - before >= 3650 * 86400

    assert story(flow).fire().result is True


def test_a_sleep_without_an_end(story):
    """It asks for nothing, and ends by being cancelled."""

    async def flow():
        await asyncio.sleep(float("inf"))

    told = story(flow)

    assert told.asked == []
    assert told.cancel().end.status.name == "CANCELLED"


def test_timers_fire_in_any_order(story):
    """Each wakes its own sleeper."""

    async def flow():
        seen = []

        async def sleeper(n):
            await asyncio.sleep(n)
            seen.append(n)

        await asyncio.gather(*[sleeper(n) for n in (3, 1, 2)])
        return seen

    assert story(flow).fire(2).fire(1).fire(3).result == [1, 3, 2]


def test_callbacks(story):
    """`call_soon`, `call_later` and done callbacks run in their order."""

    async def flow():
        loop, seen = asyncio.get_running_loop(), []
        loop.call_soon(seen.append, "soon")
        loop.call_later(5, seen.append, "later")
        loop.call_later(1, seen.append, "never").cancel()
        step = double.step(1)
        step.add_done_callback(lambda done: seen.append(done.result()))
        await asyncio.sleep(9)
        return seen

    told = story(flow)

    assert told.fire(1).run_step(3).fire(4).result == ["soon", "later", 2]


def test_as_completed_over_steps(story):
    """In the order of their answers."""

    async def flow():
        steps = [double.step(n) for n in range(3)]
        return [await each for each in asyncio.as_completed(steps)]

    assert story(flow).run_step(2).run_step(3).run_step(1).result == [2, 4, 0]


def test_an_async_generator(story):
    """Steps within it are the workflow's."""

    async def pages():
        page = 1
        while page < 8:
            page = await double.step(page)
            yield page

    async def flow():
        return [page async for page in pages()]

    assert story(flow).play().result == [2, 4, 8]


def test_a_generator_that_is_left(story):
    """It is not ended by the garbage collector, at whatever time that runs."""
    ended = []

    async def pages():
        try:
            for page in itertools.count():
                yield await double.step(page)
        finally:
            ended.append(1)

    async def flow():
        async for page in pages():
            if page:
                break
        assert ended == []
        return await double.step(5)

    assert story(flow, seen=False).play().result == 10


@pytest.mark.timeout(600)
def test_all_orders_of_six_steps(story):
    """Chains whose steps end in any order: each order of six, with the same sums."""

    async def chain(n):
        return await double.step(n), await double.step(n + 10)

    async def flow():
        return await asyncio.gather(*[chain(n) for n in range(3)])

    for order in itertools.permutations(range(6)):
        told = story(flow, seen=False)
        # Each place of the order stands for the first or second step of a chain.
        left = list(order)
        while told.end is None:
            waiting = {told.arguments(n)["n"] % 10: n for n in told.steps}
            place = next(each for each in left if each % 3 in waiting)
            left.remove(place)
            told.run_step(waiting[place % 3])
        assert told.result == [[0, 20], [2, 22], [4, 24]]
        told.compare()


@pytest.mark.timeout(600)
def test_six_parallel_steps_in_all_orders(story):
    """All 720 of them, each compared with a replay from nothing."""

    async def flow():
        seen = []

        async def one(n):
            seen.append(await double.step(n))
            await double.step(n + 10)

        await asyncio.gather(*map(one, range(6)))
        return seen

    for order in itertools.permutations(range(1, 7)):
        told = story(flow, seen=False)
        for number in order:
            told.run_step(number)
        told.compare()
        assert [told.arguments(n)["n"] for n in told.steps] == [n + 9 for n in order]
        told.live.close()


def test_a_thousand_parallel_steps(story):
    """One gather asks for all of them at once."""

    async def flow():
        return sum(await asyncio.gather(*[double.step(n) for n in range(1000)]))

    told = story(flow, seen=False)
    assert len(told.recorded) == 1000

    for number in range(1000, 0, -1):
        told.done(number, number)
    told.compare()

    assert told.result == 500500


def test_five_thousand_steps_in_a_row(story):
    """A long history replays."""

    async def flow():
        total = 0
        for n in range(5000):
            total += await double.step(n)
        return total

    told = story(flow, seen=False)
    for number in range(1, 5001):
        told.done(number, 1)
    told.compare()

    assert told.result == 5000
