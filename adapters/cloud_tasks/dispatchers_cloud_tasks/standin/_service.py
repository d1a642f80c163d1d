"""The calls of the service, on the protocol's own messages."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from google.cloud import tasks_v2, tasks_v2beta3
from grpc import StatusCode

from ._messages import (
    BatchCreated,
    BatchMetadata,
    Duration,
    Empty,
    Operation,
    Queue,
    Status,
    Task,
    packed,
    since_epoch,
    timestamp,
)
from ._rules import DEFAULT_DEADLINE, RefusedError, check_queue, check_task, with_defaults
from ._store import Store

__all__ = ["CALLS", "PREVIEW_CALLS", "Calls", "Service"]

FULL = 2
"""`Task.View.FULL`: with the body."""
BATCH = 100
"""Tasks of one batch: `BatchCreateTasksRequest.requests`."""
PAGE = 1000
"""Tasks of one page: `ListTasksRequest.page_size`."""


class Service:
    """The calls of the service.

    Args:
        store: The queues.

        wake: Told that something may be due.

        force: Told the name of a task that is to be delivered whatever its queue's state.
    """

    def __init__(
        self, store: Store, wake: Callable[[], None], force: Callable[[str], None]
    ) -> None:
        self._store = store
        self._wake = wake
        self._force = force

    # Tasks.

    def create_task(self, request: Any) -> Any:
        """Keep a task."""
        with self._store.transaction():
            task = self._created(request)
        # After the commit: before it, the scheduler's thread would not find the task.
        self._wake()
        return _view(task, request.response_view)

    def _created(self, request: Any) -> Any:
        queue, task = request.parent, request.task
        self._takes_tasks(queue)
        check_task(queue, task)
        if not task.name:
            task.name = f"{queue}/tasks/{secrets.randbelow(10**19):019d}"
        elif self._store.is_taken(task.name):
            raise RefusedError(
                StatusCode.ALREADY_EXISTS,
                "Requested entity already exists"
                if self._store.task(task.name)
                else "The task cannot be created because a task with this name existed too "
                "recently.",
            )
        now = time.time()
        if since_epoch(task.schedule_time) < now:
            task.schedule_time.CopyFrom(timestamp(now))
        task.create_time.CopyFrom(timestamp(int(now)))
        if not task.HasField("dispatch_deadline"):
            task.dispatch_deadline.CopyFrom(Duration(seconds=DEFAULT_DEADLINE))
        self._store.add(queue, task)
        return task

    def _takes_tasks(self, name: str) -> None:
        queue = self._queue(name)
        if queue.state == Queue.State.DISABLED:
            raise RefusedError(StatusCode.FAILED_PRECONDITION, "The queue is disabled.")

    def batch_create_tasks(self, request: Any) -> Any:
        """Keep several tasks; those that are refused are told by their index."""
        if not 0 < len(request.requests) <= BATCH:
            raise RefusedError(StatusCode.INVALID_ARGUMENT, f"A batch has 1 to {BATCH} requests")
        if any(each.parent != request.parent for each in request.requests):
            raise RefusedError(StatusCode.INVALID_ARGUMENT, "All tasks must be of one queue")
        key = request.request_id or str(uuid4())
        with self._store.transaction():
            self._takes_tasks(request.parent)
            # A repeated request id is answered as the first time, as the service promises.
            if (known := self._store.operation(key)) is not None:
                return Operation.FromString(known)
            operation = self._batch(request)
            operation.name = f"{request.parent}/operations/{key}"
            if request.request_id:
                self._store.keep_operation(key, operation.SerializeToString())
        self._wake()
        return operation

    def _batch(self, request: Any) -> Any:
        done, details = BatchCreated(), BatchMetadata()
        details.start_time.CopyFrom(timestamp(time.time()))
        for index, each in enumerate(request.requests):
            try:
                done.tasks.append(_view(self._created(each), each.response_view))
            except RefusedError as exc:
                details.failed_requests[index].CopyFrom(
                    Status(code=exc.code.value[0], message=exc.message)
                )
        details.end_time.CopyFrom(timestamp(time.time()))
        states = BatchMetadata.State
        all_failed = len(details.failed_requests) == len(request.requests)
        partly = states.PARTIALLY_SUCCEEDED if details.failed_requests else states.SUCCEEDED
        details.state = states.FAILED if all_failed else partly
        return Operation(done=True, metadata=packed(details), response=packed(done))

    def get_task(self, request: Any) -> Any:
        """A task."""
        return _view(self._task(request.name), request.response_view)

    def _task(self, name: str) -> Any:
        task = self._store.task(name)
        if task is None:
            raise RefusedError(StatusCode.NOT_FOUND, "Requested entity was not found.")
        return task

    def list_tasks(self, request: Any) -> Any:
        """A page of tasks."""
        self._queue(request.parent)
        size = min(request.page_size or PAGE, PAGE)
        # One more than fits tells whether another page follows.
        found = self._store.tasks(request.parent, int(request.page_token or 0), size + 1)
        page = tasks_v2.ListTasksResponse.pb()()
        page.tasks.extend(_view(task, request.response_view) for _, task in found[:size])
        if len(found) > size:
            page.next_page_token = str(found[size - 1][0])
        return page

    def delete_task(self, request: Any) -> Any:
        """Delete a task."""
        if not self._store.finish(request.name):
            raise RefusedError(StatusCode.NOT_FOUND, "Requested entity was not found.")
        return Empty()

    def batch_delete_tasks(self, request: Any) -> Any:
        """Delete several tasks."""
        details = tasks_v2.BatchDeleteTasksMetadata.pb()()
        for index, name in enumerate(request.names):
            if not self._store.finish(name):
                details.failed_requests[index].CopyFrom(
                    Status(code=StatusCode.NOT_FOUND.value[0], message="not found")
                )
        return Operation(
            name=f"{request.parent}/operations/{request.request_id or uuid4()}",
            done=True,
            metadata=packed(details),
            response=packed(Empty()),
        )

    def run_task(self, request: Any) -> Any:
        """Deliver a task now, whatever its schedule time and the state of its queue."""
        self._task(request.name)
        task = self._store.schedule(request.name, time.time())
        # After the schedule: the delivery reads the task anew.
        self._force(request.name)
        return _view(task, request.response_view)

    # Queues.

    def _queue(self, name: str) -> Any:
        queue = self._store.queue(name)
        if queue is None:
            raise RefusedError(
                StatusCode.NOT_FOUND,
                "Queue does not exist. If you just created the queue, wait at least a minute for "
                "the queue to initialize.",
            )
        return queue

    def create_queue(self, request: Any) -> Any:
        """Make a queue."""
        check_queue(request.queue)
        if self._store.queue(request.queue.name) is not None:
            raise RefusedError(StatusCode.ALREADY_EXISTS, "Queue already exists")
        # A copy: defaults must not show up in the caller's own message.
        queue = with_defaults(Queue.FromString(request.queue.SerializeToString()))
        self._store.put_queue(queue)
        return queue

    def update_queue(self, request: Any) -> Any:
        """Change what the mask names of a queue, or make it."""
        check_queue(request.queue)
        queue = self._store.queue(request.queue.name) or Queue(name=request.queue.name)
        paths = request.update_mask.paths or ["rate_limits", "retry_config"]
        # Whole fields: a finer path, as `retry_config.max_attempts`, replaces all of its message.
        for field in {path.partition(".")[0] for path in paths}:
            getattr(queue, field).CopyFrom(getattr(request.queue, field))
        self._store.put_queue(with_defaults(queue))
        return queue

    def get_queue(self, request: Any) -> Any:
        """A queue."""
        return self._queue(request.name)

    def get_queue_figures(self, request: Any) -> Any:
        """Return a queue with its figures, if they are asked for."""
        self._queue(request.name)
        found = tasks_v2beta3.Queue.pb()(name=request.name)
        if "stats" in request.read_mask.paths:
            tasks = [task for _, task in self._store.tasks(request.name)]
            found.stats.tasks_count = len(tasks)
            if tasks:
                oldest = min((task.create_time for task in tasks), key=since_epoch)
                found.stats.oldest_estimated_arrival_time.CopyFrom(oldest)
        return found

    def list_queues(self, request: Any) -> Any:
        """All queues of a location."""
        page = tasks_v2.ListQueuesResponse.pb()()
        page.queues.extend(self._store.queues(f"{request.parent}/queues/"))
        return page

    def delete_queue(self, request: Any) -> Any:
        """Delete a queue and its tasks."""
        self._queue(request.name)
        self._store.delete_queue(request.name)
        return Empty()

    def purge_queue(self, request: Any) -> Any:
        """Delete the tasks of a queue."""
        queue = self._queue(request.name)
        queue.purge_time.CopyFrom(timestamp(time.time()))
        self._store.put_queue(queue)
        self._store.purge(request.name)
        return queue

    def pause_queue(self, request: Any) -> Any:
        """Deliver no tasks of a queue; it still takes them."""
        return self._in_state(request.name, Queue.State.PAUSED)

    def resume_queue(self, request: Any) -> Any:
        """Deliver tasks of a queue again."""
        return self._in_state(request.name, Queue.State.RUNNING)

    def _in_state(self, name: str, state: int) -> Any:
        queue = self._queue(name)
        queue.state = state
        self._store.put_queue(queue)
        self._wake()
        return queue


def _view(task: Any, view: int) -> Any:
    """The task as it is answered, without its body unless asked for."""
    shown = Task()
    shown.CopyFrom(task)
    shown.view = view or 1
    if shown.view != FULL:
        shown.http_request.ClearField("body")
    return shown


Calls = dict[str, tuple[Any, Callable[[Service, Any], Any]]]
CALLS: Calls = {
    "CreateTask": (tasks_v2.CreateTaskRequest.pb(), Service.create_task),
    "BatchCreateTasks": (tasks_v2.BatchCreateTasksRequest.pb(), Service.batch_create_tasks),
    "GetTask": (tasks_v2.GetTaskRequest.pb(), Service.get_task),
    "ListTasks": (tasks_v2.ListTasksRequest.pb(), Service.list_tasks),
    "DeleteTask": (tasks_v2.DeleteTaskRequest.pb(), Service.delete_task),
    "BatchDeleteTasks": (tasks_v2.BatchDeleteTasksRequest.pb(), Service.batch_delete_tasks),
    "RunTask": (tasks_v2.RunTaskRequest.pb(), Service.run_task),
    "CreateQueue": (tasks_v2.CreateQueueRequest.pb(), Service.create_queue),
    "UpdateQueue": (tasks_v2.UpdateQueueRequest.pb(), Service.update_queue),
    "GetQueue": (tasks_v2.GetQueueRequest.pb(), Service.get_queue),
    "ListQueues": (tasks_v2.ListQueuesRequest.pb(), Service.list_queues),
    "DeleteQueue": (tasks_v2.DeleteQueueRequest.pb(), Service.delete_queue),
    "PurgeQueue": (tasks_v2.PurgeQueueRequest.pb(), Service.purge_queue),
    "PauseQueue": (tasks_v2.PauseQueueRequest.pb(), Service.pause_queue),
    "ResumeQueue": (tasks_v2.ResumeQueueRequest.pb(), Service.resume_queue),
}
"""The calls by name: the request's message, and the method that serves it."""
PREVIEW_CALLS: Calls = {
    "GetQueue": (tasks_v2beta3.GetQueueRequest.pb(), Service.get_queue_figures),
}
