"""What type checkers make of the public names. Checked by mypy --strict and pyright, never run.

Each `type: ignore` is a mistake that the checkers must see: both complain where one is not needed.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false
# pyright: reportPrivateUsage=false, reportUnusedCoroutine=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type
from uuid import UUID

from dispatchers import (
    Action,
    BackendOptions,
    Backoff,
    BaseAsyncDispatcher,
    BaseDispatcher,
    Capabilities,
    Claim,
    DeadLetter,
    DeadLetterStore,
    Discard,
    Dispatcher,
    DispatchError,
    DispatchFailure,
    DispatchRequest,
    DispatchResponse,
    DispatchResponses,
    DispatchStatus,
    ErrorCategory,
    FailedResponses,
    IdempotencyStore,
    Outcome,
    Reason,
    RejectedError,
    Retry,
    Run,
    RunSettings,
    Sent,
    Task,
    Worker,
    WorkerOptions,
    arun_envelope,
    catalogue,
    check,
    classify,
    configure,
    current_run,
    declare,
    get_dispatcher,
    hooks,
    override,
    register,
    run_envelope,
    task,
)

# Tasks


@task
def bare(number: int, text: str = "") -> None: ...


@task(name="shop.double", queue="mail", max_attempts=5, backoff=Backoff(initial=10))
def double(number: int) -> int:
    return 2 * number


@task(
    former_names=("shop.old",),
    dispatcher="mail",
    priority=5,
    expires=timedelta(hours=1),
    time_limit=timedelta(minutes=1),
    retry_on=(OSError,),
    discard_on=(ValueError,),
    on_handler_error="log",
)
async def fetch(key: UUID, *, at: datetime) -> str:
    return f"{key} {at}"


assert_type(bare, Task[[int, str], None])  # type: ignore[assert-type]  # names are part of it
assert_type(bare(1), None)
assert_type(bare(number=1, text="a"), None)
assert_type(double(2), int)
assert_type(bare.name, str)

bare("1")  # type: ignore[arg-type]
bare()  # type: ignore[call-arg]
bare(1, txt="")  # type: ignore[call-arg]
task(prority=5)  # type: ignore[call-overload]
task(on_handler_error="ignore")  # type: ignore[call-overload]
task(time_limit="5")  # type: ignore[call-overload]
bare.name = 5  # type: ignore[assignment]


async def called() -> None:
    assert_type(await fetch(UUID(int=1), at=datetime.now(UTC)), str)


# Dispatching takes exactly the function's parameters

assert_type(bare.dispatch(1), DispatchResponse)
assert_type(bare.dispatch(number=1, text="a"), DispatchResponse)
assert_type(fetch.dispatch(UUID(int=1), at=datetime.now(UTC)), DispatchResponse)
assert_type(bare.request(1), DispatchRequest)

bare.dispatch("1")  # type: ignore[arg-type]
bare.dispatch()  # type: ignore[call-arg]
bare.dispatch(1, 2)  # type: ignore[arg-type]
bare.dispatch(1, txt="")  # type: ignore[call-arg]
bare.request(number="1")  # type: ignore[arg-type]
fetch.dispatch(UUID(int=1), datetime.now(UTC))  # type: ignore[call-arg]


async def awaited() -> None:
    assert_type(await bare.adispatch(1, text="a"), DispatchResponse)
    await bare.adispatch("1")  # type: ignore[arg-type]
    await bare.adispatch()  # type: ignore[call-arg]


chosen = bare.options(
    dispatcher="mail",
    queue="low",
    priority=-5,
    delay=timedelta(minutes=5),
    expires=datetime.now(UTC),
    deadline=0.5,
    time_limit=3,
    max_attempts=2,
    backoff=Backoff(),
    idempotency_key="k",
    deduplicate=True,
    headers={"a": "b"},
    context={"c": [1, None, {"d": 1.5}]},
)
assert_type(chosen.dispatch(1), DispatchResponse)
assert_type(chosen.options(eta=datetime.now(UTC)).request(1), DispatchRequest)
chosen.dispatch("1")  # type: ignore[arg-type]
bare.options(dealy=timedelta(1))  # type: ignore[call-arg]
bare.options(delay=5)  # type: ignore[arg-type]
bare.options(headers={"a": 1})  # type: ignore[dict-item]
bare.options(context={"a": object()})  # type: ignore[dict-item]
bare.options(dispatcher=5)  # type: ignore[arg-type]

batch = bare.batch()
assert_type(batch.add(1, text="a"), None)
batch.add("1")  # type: ignore[arg-type]
assert_type(batch.dispatch(), DispatchResponses)


# Declarations and their bodies


@declare(name="shop.elsewhere")
def elsewhere(number: int, text: str = "") -> None: ...


@declare
def elsewhere_too(number: int) -> None: ...


assert_type(elsewhere.dispatch(1), DispatchResponse)
elsewhere.dispatch("1")  # type: ignore[arg-type]


@elsewhere.implement
def _body(number: int, text: str = "") -> None: ...


@elsewhere_too.implement
async def _async_body(number: int) -> None: ...


@elsewhere_too.implement  # type: ignore[arg-type]
def _other_type(number: str) -> None: ...


@elsewhere_too.implement  # type: ignore[arg-type]
def _one_more(number: int, text: str) -> None: ...


# Responses

response = bare.dispatch(1)
assert_type(response.status, DispatchStatus)
assert_type(response.ok, bool)
assert_type(response.error, DispatchFailure | None)
assert_type(response.task_id, str | None)
assert_type(response.waived, tuple[str, ...])
assert_type(response.elapsed, float)
assert_type(response.request, DispatchRequest | None)
assert_type(response.exception, BaseException | None)
assert_type(response.raise_for_error(), DispatchResponse)
if error := response.error:
    assert_type(error.category, ErrorCategory)
    assert_type(error.retryable, bool)
print(response.error.message)  # type: ignore[union-attr]
print(response.result)  # type: ignore[attr-defined]

responses = batch.dispatch()
assert_type(responses[0], DispatchResponse)
assert_type(responses[1:], DispatchResponses)
assert_type(responses.failed, FailedResponses)
assert_type(responses.raise_for_error(), DispatchResponses)
assert_type([each.ok for each in responses], list[bool])
as_sequence: Sequence[DispatchResponse] = responses

try:
    response.raise_for_error()
except DispatchError as exc:
    assert_type(exc.response, DispatchResponse)

# Requests

request = DispatchRequest(task="shop.double")
assert_type(request.replace(queue="low"), DispatchRequest)
assert_type(request.due, datetime | None)
assert_type(request.key, str)
DispatchRequest(task="t", priority="high")  # type: ignore[arg-type]
DispatchRequest(task="t", prority=5)  # type: ignore[call-arg]

# Dispatchers

assert_type(get_dispatcher(), BaseDispatcher)
assert_type(get_dispatcher("mail").dispatch(request), DispatchResponse)
assert_type(get_dispatcher("mail").dispatch_many([request]), DispatchResponses)
get_dispatcher(5)  # type: ignore[arg-type]
get_dispatcher().dispatch("t")  # type: ignore[arg-type]
as_dispatcher: Dispatcher = get_dispatcher()
bare.options(dispatcher=as_dispatcher)


class MailOptions(BackendOptions):
    url: str = "smtp://localhost"


@register
class MailDispatcher(BaseDispatcher):
    """What an adapter's author writes."""

    name = "mail"
    contract = 1
    capabilities = Capabilities(delay=True)
    Options = MailOptions
    options: MailOptions
    library = "smtplib"
    guarded = True

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return Sent(f"{self.options.url} {request.task} {len(body)} {timeout}")

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return ErrorCategory.UNAVAILABLE if isinstance(exc, OSError) else None

    def _maybe_sent(self, exc: Exception) -> bool:
        return not isinstance(exc, ConnectionRefusedError)

    def _probe(self, *, timeout: float) -> None: ...

    def _close(self, timeout: float) -> int:
        return 0

    def _worker(self, options: WorkerOptions) -> Worker:
        raise NotImplementedError(options.concurrency)

    def _dead_letters(self) -> DeadLetterStore | None:
        return None


class AwaitingDispatcher(BaseAsyncDispatcher):
    name = "awaiting"
    contract = 1
    capabilities = Capabilities()

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        if body:
            raise RejectedError.because(OSError("refused"), ErrorCategory.UNAVAILABLE)
        assert_type(self._bounded(lambda: 5, timeout=timeout), int)
        return Sent(status=DispatchStatus.DUPLICATE)

    async def _aprobe(self, *, timeout: float) -> list[str]:
        return ["not durable"]

    async def _aclose(self, *, timeout: float) -> int:
        return 0

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        return True


assert_type(MailDispatcher(url="smtp://host"), MailDispatcher)
assert_type(MailDispatcher.is_available(), bool)


class Shouting(BaseDispatcher):
    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse:  # type: ignore[misc]
        raise NotImplementedError


# Configuration

configure({"targets": {"test": {"default": {"backend": "inline"}}}}, target="test")
check(contact=True, target="test")
with override({"on_handler_error": "log"}, default="memory", mail=get_dispatcher()):
    bare.dispatch(1)


@override(default="memory")
def overridden(number: int) -> str:
    return str(number)


assert_type(overridden(1), str)
overridden("1")  # type: ignore[arg-type]
configure(target=5)  # type: ignore[arg-type]

# The worker's side

outcome = run_envelope(b"", attempt=2, deliveries=1, settings=RunSettings(max_deliveries=3))
assert_type(outcome, Outcome)
assert_type(outcome.action, Action)
assert_type(outcome.reason, Reason)
assert_type(outcome.after, float)
run_envelope("")  # type: ignore[arg-type]


async def run_async() -> None:
    assert_type(await arun_envelope(b""), Outcome)


@task
def handler(number: int) -> None:
    run = current_run()
    assert_type(run, Run)
    assert_type(run.request, DispatchRequest)
    assert_type(run.time_left, float | None)
    assert_type(run.should_stop, bool)
    if run.attempt > 1:
        raise Retry(after=timedelta(minutes=number), reason="later")
    raise Discard("not wanted")


classify(OSError, "permanent")
classify(OSError, "sometimes")  # type: ignore[call-overload]
classify(int, "permanent")  # type: ignore[call-overload]


class Store:
    """Protocols are met without inheriting."""

    def claim(self, key: str, owner: str, ttl: float) -> Claim:
        return Claim("claimed")

    def renew(self, key: str, owner: str, ttl: float) -> bool:
        return True

    def complete(self, key: str, owner: str, ttl: float) -> bool:
        return True

    def release(self, key: str, owner: str) -> bool:
        return True


store: IdempotencyStore = Store()
Claim("lost")  # type: ignore[arg-type]
assert_type(DeadLetter(id="a", task="t", reason="expired", body=b"").body, bytes)
assert_type(DeadLetter(id="a", task="t", reason="expired", body=b"").to_json(), str)
assert_type(DeadLetter.from_json(b"{}", body=b""), DeadLetter)
RejectedError.because(KeyboardInterrupt())  # type: ignore[arg-type]

assert_type([each.name for each in catalogue.all()], list[str])
found = catalogue.find("shop.double")
if found is not None:
    assert_type(found.dispatch(1, 2, anything=3), DispatchResponse)

# Hooks


@hooks.before_dispatch
def stamp(request: DispatchRequest) -> DispatchRequest:
    return request.replace(headers={**request.headers, "tenant": "acme"})


@hooks.before_dispatch
def look(request: DispatchRequest) -> None: ...


@hooks.after_dispatch
def after(response: DispatchResponse) -> None: ...


@hooks.before_run
def before_run(run: Run) -> None: ...


@hooks.after_run
def after_run(run: Run, outcome: Outcome) -> None: ...


@hooks.after_dispatch  # type: ignore[type-var]
def wrong(request: str) -> None: ...


assert_type(stamp(request), DispatchRequest)


# A task can be handed on without losing its parameters


def call_twice(dispatch: Callable[[int], DispatchResponse]) -> None:
    dispatch(1)


call_twice(bare.dispatch)
call_twice(double.dispatch)
anything: Task[..., Any] = bare
