"""Pushes tasks that are due to their HTTP targets, and again until they are acknowledged."""

from __future__ import annotations

import http.client
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ._messages import Status, seconds_of, since_epoch, timestamp
from ._misbehaviour import Orders
from ._rules import backoff, gives_up, method_of, retry_after, retry_config
from ._store import Store

__all__ = ["Delivery", "Response"]

AT_ONCE = 32
"""Deliveries at the same time; the service's own default is 1000 of each queue."""
LONGEST_NAP = 1.0
"""Seconds until the file is looked into again, whatever is known of it."""
DROPPED = ("host", "content-length", "user-agent")
"""Headers that the service ignores or replaces: `HttpRequest.headers`."""
DROPPED_PREFIXES = ("x-google-", "x-appengine-", "x-cloudtasks-")
log = logging.getLogger("dispatchers.cloud_tasks.standin")


class Response(NamedTuple):
    """A worker's answer; status 0 stands for none."""

    status: int
    retry_after: str | None = None
    error: str = ""

    @property
    def ok(self) -> bool:
        """Return true if it acknowledges the task."""
        return 200 <= self.status < 300  # noqa: PLR2004


class Delivery:
    """A scheduler and its threads.

    Args:
        store: The queues.

        token: Makes an OIDC token for a service account and an audience.

        orders: What to do wrong.
    """

    def __init__(self, store: Store, token: Callable[[str, str], str], orders: Orders) -> None:
        self._store = store
        self._token = token
        self._orders = orders
        self._under_way: set[str] = set()
        self._forced: list[str] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._pool = ThreadPoolExecutor(AT_ONCE, "standin-delivery")
        self._thread = threading.Thread(target=self._run, name="standin-scheduler", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(wait=True)

    def wake(self) -> None:
        """Something may be due."""
        with self._changed:
            self._changed.notify()

    def force(self, name: str) -> None:
        """Deliver a task now, even of a queue that is paused: `RunTask`."""
        with self._changed:
            self._forced.append(name)
            self._changed.notify()

    # The scheduler.

    def _run(self) -> None:
        while not self._stopping:
            with self._changed:
                now = time.time()
                found = self._claimed(now)
                if not found and not self._stopping:
                    self._changed.wait(self._nap(now))
            for queue, name in found:
                self._pool.submit(self._deliver, queue, name)

    def _claimed(self, now: float) -> list[tuple[str, str]]:
        room = AT_ONCE - len(self._under_way)
        if room <= 0 or self._stopping:
            return []
        if self._forced:
            return [self._claimed_by_name(self._forced.pop(0))]
        held_back = now - self._orders.current.delivery_delay
        found = self._store.due(held_back, [*self._under_way], room)
        if self._orders.current.reorder:
            random.shuffle(found)
        self._under_way.update(name for _, name in found)
        return found

    def _claimed_by_name(self, name: str) -> tuple[str, str]:
        self._under_way.add(name)
        return name.rpartition("/tasks/")[0], name

    def _nap(self, now: float) -> float:
        due = self._store.next_due(now)
        delay = self._orders.current.delivery_delay
        return LONGEST_NAP if due is None or delay else min(LONGEST_NAP, max(0.001, due - now))

    # One delivery.

    def _deliver(self, queue: str, name: str) -> None:
        try:
            self._attempt(queue, name)
        except Exception:
            # Logged here: the pool would keep the exception in a future that nothing reads.
            log.exception("delivery of %s failed", name)
        finally:
            with self._changed:
                self._under_way.discard(name)
                self._changed.notify()

    def _attempt(self, queue: str, name: str) -> None:
        """Count first: an attempt that ends with this process was one."""
        with self._store.transaction():
            task, config = self._store.task(name), self._store.queue(queue)
            if task is None or config is None:
                return
            executions, previous = self._store.counts(name)
            began = time.time()
            task.dispatch_count += 1
            task.last_attempt.Clear()
            task.last_attempt.schedule_time.CopyFrom(task.schedule_time)
            task.last_attempt.dispatch_time.CopyFrom(timestamp(began))
            if task.dispatch_count == 1:
                task.first_attempt.dispatch_time.CopyFrom(timestamp(began))
            self._store.update(task, executions=executions, previous=previous)
        headers = self._headers(queue, task, executions, previous)
        response = _pushed(task, headers)
        # After the push: the worker has done the work, and the queue does not know.
        if response.ok and self._orders.takes("lose_response"):
            response = Response(0, error="the response was lost, as ordered")
        if response.ok and self._orders.takes("duplicate"):
            _pushed(task, headers)
        if response.ok:
            self._store.finish(name)
        else:
            self._failed(task, retry_config(config, task), executions, response)

    def _failed(self, task: Any, config: Any, executions: int, response: Response) -> None:
        now = time.time()
        with self._store.transaction():
            if self._store.task(task.name) is None:  # deleted meanwhile
                return
            if gives_up(config, task, now):
                log.warning("%s is dropped after %d attempts", task.name, task.dispatch_count)
                self._store.finish(task.name)
                return
            wait = backoff(config, task.dispatch_count)
            wait = max(wait, retry_after(response.retry_after, now))
            task.schedule_time.CopyFrom(timestamp(now + wait))
            if response.status:
                task.response_count += 1
                task.last_attempt.response_time.CopyFrom(timestamp(now))
            message = response.error or f"HTTP status code {response.status}"
            task.last_attempt.response_status.CopyFrom(Status(code=2, message=message))
            # The service counts an execution only where the worker has answered, and not with 5xx.
            answered = bool(response.status) and response.status < 500  # noqa: PLR2004
            previous = str(response.status) if response.status else ""
            self._store.update(task, executions=executions + answered, previous=previous)
        log.info("%s: %s, again in %.2f s", task.name, message, wait)

    def _headers(
        self, queue: str, task: Any, executions: int, previous: str | None
    ) -> dict[str, str]:
        """https://cloud.google.com/tasks/docs/creating-http-target-tasks#handler."""
        request = task.http_request
        kept = {k: v for k, v in request.headers.items() if not _is_dropped(k)}
        own = {
            "User-Agent": "Google-Cloud-Tasks",
            "X-CloudTasks-QueueName": queue.rpartition("/")[2],
            "X-CloudTasks-TaskName": task.name.rpartition("/")[2],
            "X-CloudTasks-TaskRetryCount": str(task.dispatch_count - 1),
            "X-CloudTasks-TaskExecutionCount": str(executions),
            "X-CloudTasks-TaskETA": f"{since_epoch(task.schedule_time):.6f}",
        }
        if previous is not None:
            reason = f"HTTP status code {previous}" if previous else "no response"
            own["X-CloudTasks-TaskRetryReason"] = reason
        if previous:
            own["X-CloudTasks-TaskPreviousResponse"] = previous
        return {**kept, **own, **self._authorization(request)}

    def _authorization(self, request: Any) -> Mapping[str, str]:
        if not request.HasField("oidc_token"):
            return {}
        oidc = request.oidc_token
        token = self._token(oidc.service_account_email, oidc.audience or request.url)
        return {"Authorization": f"Bearer {token}"}


def _is_dropped(header: str) -> bool:
    name = header.lower()
    return name in DROPPED or name.startswith(DROPPED_PREFIXES)


def _pushed(task: Any, headers: Mapping[str, str]) -> Response:
    """One HTTP request, within the task's dispatch deadline."""
    request = task.http_request
    url = urlsplit(request.url)
    deadline = seconds_of(task.dispatch_deadline)
    secure = url.scheme == "https"
    host, port = url.hostname or "", url.port
    connection = (
        http.client.HTTPSConnection(
            host, port, timeout=deadline, context=ssl.create_default_context()
        )
        if secure
        else http.client.HTTPConnection(host, port, timeout=deadline)
    )
    path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    try:
        connection.request(
            method_of(request), path, body=request.body or None, headers=dict(headers)
        )
        answer = connection.getresponse()
        # To its end: a reply that breaks off is none.
        answer.read()
        return Response(answer.status, answer.getheader("Retry-After"))
    except (OSError, http.client.HTTPException, ValueError) as exc:
        # ValueError: a header or a path that HTTP cannot carry.
        return Response(0, error=type(exc).__name__)
    finally:
        connection.close()
