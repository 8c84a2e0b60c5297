"""The requests of both clients, which of them are retried, and the texts of errors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol, cast

import httpx
import pytest

from catchlight.api.problems import (
    IN_PROGRESS,
    INVALID_REQUEST,
    PROVIDER_BUSY,
    REQUEST_REFUSED,
    UNKNOWN_OUTCOME,
    Problem,
    ProviderReply,
)
from catchlight.api.problems import (
    APIError as ServedProblemError,
)
from catchlight.client import (
    APIConnectionError,
    APIError,
    AsyncTasksClient,
    CatchlightError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    TasksApiError,
    TasksClient,
    UnexpectedResponseError,
    UnknownOutcomeError,
    connect,
)
from catchlight.client.retrying import RetryPolicy
from catchlight.models import TaskStatus
from tests.event_loop import EventLoopThread, run
from tests.tasks_api_in_memory import API, NOW, TasksApiInMemory, a_task, an_image


class Connected(Protocol):
    """Returns a client of this API that calls `sleep` for its pauses. By default, pauses are skipped."""

    def __call__(self, api: TasksApiInMemory, sleep: Callable[[float], None] = ..., **policy: Any) -> TasksClient: ...


class RunToEnd:
    """AsyncTasksClient with the interface of TasksClient: each call runs in the event loop to its end."""

    def __init__(self, client: AsyncTasksClient, runner: EventLoopThread) -> None:
        self._client = client
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return partial(self._call, getattr(self._client, name))

    def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        return self._iterate(result) if isinstance(result, AsyncIterator) else self._runner.run(_awaited(result))

    def _iterate(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        while (item := self._runner.run(_awaited(anext(items, None)))) is not None:
            yield item


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


@pytest.fixture(params=[TasksClient, AsyncTasksClient])
def connected(request: pytest.FixtureRequest) -> Iterator[Connected]:
    with EventLoopThread() as runner:

        def connect_to(
            api: TasksApiInMemory, sleep: Callable[[float], None] = lambda _: None, **policy: Any
        ) -> TasksClient:
            async def async_sleep(seconds: float) -> None:
                sleep(seconds)

            retry_policy = RetryPolicy(sleep=sleep, async_sleep=async_sleep, **policy)
            client = request.param(API, retry_policy=retry_policy, transport=httpx.MockTransport(api))
            return cast("TasksClient", client if request.param is TasksClient else RunToEnd(client, runner))

        yield connect_to


def problem(problem: Problem, **more: object) -> httpx.Response:
    served = ServedProblemError(problem, "it is so", advice="Do this.", **more)  # type: ignore[arg-type]
    headers = {"Content-Type": "application/problem+json"}
    return httpx.Response(problem.status, json=served.members, headers=headers)


def first(*answers: httpx.Response | Exception) -> Callable[[httpx.Request], httpx.Response | None]:
    """Returns a handler that returns these responses one after the other, then lets the tasks API respond."""
    waiting = list(answers)

    def before(_: httpx.Request) -> httpx.Response | None:
        answer = waiting.pop(0) if waiting else None
        if isinstance(answer, Exception):
            raise answer
        # A copy: a response that a client has received cannot be sent to a client of the other kind.
        return answer and httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    return before


# ------------------------------------------------------------------------------------------------ look-ups


def test_a_task_has_the_values_of_the_tasks_api(connected: Connected) -> None:
    content = b"an image"
    api = TasksApiInMemory([a_task("t1", images=[an_image("t1", content)], request={"prompt": "a tree"})])
    task = connected(api).task("flux-kontext", "t1")
    assert (task.status, task.done, task.request) == (TaskStatus.ARCHIVED, True, {"prompt": "a tree"})
    (image,) = task.images
    assert image.bytes == len(content)
    assert image.link is not None


def test_a_missing_task_is_an_error(connected: Connected) -> None:
    with pytest.raises(NotFoundError, match=r"There is no such task: flux-kontext has no task t1\. Look at the id\."):
        connected(TasksApiInMemory()).task("flux-kontext", "t1")


def test_a_page_is_requested_when_its_first_task_is_needed(connected: Connected) -> None:
    api = TasksApiInMemory(a_task(f"t{n}", arrived_at=NOW - timedelta(minutes=n)) for n in range(250))
    tasks = connected(api).tasks()
    assert next(tasks).task_id == "t0"
    assert len(api.requests) == 1
    assert [task.task_id for task in tasks] == [f"t{n}" for n in range(1, 250)]
    assert len(api.requests) == 3


def test_no_more_tasks_than_the_limit_are_requested(connected: Connected) -> None:
    api = TasksApiInMemory(a_task(f"t{n}", arrived_at=NOW - timedelta(minutes=n)) for n in range(250))
    assert len(list(connected(api).tasks(limit=120))) == 120
    assert [request.url.params["limit"] for request in api.requests] == ["100", "20"]


@pytest.mark.parametrize(("limit", "sizes"), [(None, ["20", "100", "100", "100"]), (115, ["20", "95"]), (15, ["15"])])
def test_the_first_page_can_be_smaller(connected: Connected, limit: int | None, sizes: list[str]) -> None:
    api = TasksApiInMemory(a_task(f"t{n}", arrived_at=NOW - timedelta(minutes=n)) for n in range(250))
    pages = list(connected(api).pages(limit=limit, first_page=20))
    assert [task.task_id for page in pages for task in page.tasks] == [f"t{n}" for n in range(limit or 250)]
    assert [request.url.params["limit"] for request in api.requests] == sizes


def test_pages_with_few_tasks_do_not_end_the_iteration(connected: Connected) -> None:
    tasks = [
        a_task(f"t{n}", provider="acedata" if n > 220 else "nanobanana", arrived_at=NOW - timedelta(minutes=n))
        for n in range(230)
    ]
    api = TasksApiInMemory(tasks)
    assert [task.task_id for task in connected(api).tasks(provider="acedata")] == [f"t{n}" for n in range(221, 230)]


def test_filters_reach_the_tasks_api(connected: Connected) -> None:
    api = TasksApiInMemory()
    since = datetime.fromisoformat("2026-01-31T13:00:00+01:00")
    list(connected(api).tasks(status=TaskStatus.TIMED_OUT, provider="nanobanana", since=since))
    assert dict(api.requests[0].url.params) == {
        "status": "TIMED_OUT",
        "provider": "nanobanana",
        "since": "2026-01-31T12:00:00Z",
        "limit": "100",
    }


def test_wait_repeats_the_request_until_the_task_is_done(connected: Connected) -> None:
    api = TasksApiInMemory([a_task("t1", TaskStatus.PENDING)])

    def finish_at_the_third_request(_: httpx.Request) -> None:
        if len(api.requests) == 3:
            api.tasks["flux-kontext#t1"] = a_task("t1")

    api.before = finish_at_the_third_request
    assert connected(api).wait("flux-kontext", "t1").status is TaskStatus.ARCHIVED
    assert [request.url.params.get("wait") for request in api.requests] == ["20", "20", "20"]


def test_wait_pauses_as_long_as_retry_after_requires(connected: Connected) -> None:
    pauses: list[float] = []
    api = TasksApiInMemory([a_task("t1", TaskStatus.PENDING)])

    def refuse_to_wait_twice(_: httpx.Request) -> httpx.Response | None:
        if len(api.requests) <= 2:
            pending = a_task("t1", TaskStatus.PENDING).model_dump_json(by_alias=True, exclude_none=True)
            headers = {"Retry-After": "5", "Content-Type": "application/json"}
            return httpx.Response(200, content=pending, headers=headers)
        api.tasks["flux-kontext#t1"] = a_task("t1")
        return None

    api.before = refuse_to_wait_twice
    assert connected(api, sleep=pauses.append).wait("flux-kontext", "t1").done
    assert pauses == [5, 5]


def test_wait_ends_after_timeout_seconds(connected: Connected) -> None:
    api = TasksApiInMemory([a_task("t1", TaskStatus.PENDING)])
    task = connected(api).wait("flux-kontext", "t1", timeout_seconds=0)
    assert not task.done
    assert api.requested_paths() == ["/tasks/flux-kontext/t1"]


def test_an_id_is_encoded_as_one_path_segment(connected: Connected) -> None:
    api = TasksApiInMemory()
    with pytest.raises(NotFoundError):
        connected(api).task("flux-kontext", "../../callbacks?wait=1#x")
    assert api.requested_paths() == ["/tasks/flux-kontext/..%2F..%2Fcallbacks%3Fwait%3D1%23x"]


# ------------------------------------------------------------------------------------------------ retries


def test_a_submission_is_retried_with_the_same_key(connected: Connected) -> None:
    api = TasksApiInMemory()
    api.before = first(httpx.ReadTimeout("lost"), httpx.Response(502), problem(IN_PROGRESS))
    new = connected(api).submit("acedata", {"prompt": "a tree"})
    assert new.outcome == "submitted"
    keys = {request.headers["Idempotency-Key"] for request in api.requests}
    assert (len(api.requests), len(keys)) == (4, 1)
    assert len({request.content for request in api.requests}) == 1


def test_every_submission_has_a_new_key_unless_one_is_given(connected: Connected) -> None:
    api = TasksApiInMemory()
    client = connected(api)
    client.submit("acedata", {"prompt": "a"})
    client.submit("acedata", {"prompt": "a"})
    client.submit("acedata", {"prompt": "a"}, idempotency_key="mine")
    keys = [request.headers["Idempotency-Key"] for request in api.requests]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


@pytest.mark.parametrize(
    "refusal",
    [
        problem(REQUEST_REFUSED),
        problem(UNKNOWN_OUTCOME),
        problem(INVALID_REQUEST),
        httpx.Response(403, json={"message": "Forbidden"}),
    ],
    ids=["refused", "unknown outcome", "invalid", "not allowed"],
)
def test_a_refused_submission_is_not_retried(connected: Connected, refusal: httpx.Response) -> None:
    api = TasksApiInMemory()
    api.before = first(refusal)
    with pytest.raises(TasksApiError):
        connected(api).submit("acedata", {"prompt": "a tree"})
    assert len(api.requests) == 1


@pytest.mark.parametrize("key", ["", "ä", "a b", "a\n", "x" * 129])
def test_nothing_is_sent_with_an_invalid_key(connected: Connected, key: str) -> None:
    api = TasksApiInMemory()
    with pytest.raises(TasksApiError, match="is not an idempotency key"):
        connected(api).submit("acedata", {"prompt": "a tree"}, idempotency_key=key)
    with pytest.raises(TasksApiError, match="is not an idempotency key"):
        connected(api).release_key(key)
    assert api.requests == []


def test_a_lone_surrogate_is_sent_and_not_refused_by_the_client(connected: Connected) -> None:
    api = TasksApiInMemory()
    connected(api).submit("acedata", {"prompt": "ein Würfel \ud800"})
    assert api.requests[0].content.endswith('"prompt": "ein Würfel \\ud800"}}'.encode())


def test_without_a_region_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(CatchlightError, match="set AWS_REGION"):
        connect("nowhere")


def test_the_release_of_a_key_is_never_sent_twice(connected: Connected) -> None:
    api = TasksApiInMemory()
    api.before = first(httpx.ReadTimeout("lost"))
    with pytest.raises(APIConnectionError):
        connected(api).release_key("order-17")
    assert api.requested_paths("DELETE") == ["/submissions/order-17"]


def test_the_pause_is_that_of_retry_after(connected: Connected) -> None:
    pauses: list[float] = []
    api = TasksApiInMemory()
    busy = problem(PROVIDER_BUSY)
    busy.headers["Retry-After"] = "7"
    api.before = first(busy)
    connected(api, sleep=pauses.append).submit("acedata", {"prompt": "a tree"})
    assert pauses == [7.0]


def test_pauses_grow_and_are_random(connected: Connected) -> None:
    pauses: list[float] = []
    api = TasksApiInMemory()
    api.before = lambda _: httpx.Response(500)
    with pytest.raises(TasksApiError, match="HTTP 500"):
        connected(api, max_attempts=5, sleep=pauses.append).page()
    assert len(api.requests) == 5
    assert len(pauses) == 4
    for number, pause in enumerate(pauses):
        assert 0.2 * 2**number <= pause <= 0.4 * 2**number
    assert len({pause / 2**number for number, pause in enumerate(pauses)}) > 1


def test_no_pause_exceeds_max_seconds(connected: Connected) -> None:
    api = TasksApiInMemory()
    busy = problem(PROVIDER_BUSY)
    busy.headers["Retry-After"] = "600"
    api.before = lambda _: busy
    with pytest.raises(RateLimitError) as caught:
        connected(api, max_seconds=60, sleep=lambda _: pytest.fail("it waited")).page()
    assert caught.value.retry_after_seconds == 600
    assert len(api.requests) == 1


# ------------------------------------------------------------------------------------------------ errors


def test_an_error_has_the_text_of_the_problem(connected: Connected) -> None:
    api = TasksApiInMemory()
    reply = ProviderReply(status=402, body={"msg": "no credits"})
    api.before = first(problem(REQUEST_REFUSED, provider_reply=reply))
    with pytest.raises(APIError) as caught:
        connected(api).submit("acedata", {"prompt": "a tree"})
    assert str(caught.value) == (
        "The provider refused the request: it is so. Do this.\n  The provider returned HTTP 402: {'msg': 'no credits'}"
    )
    assert caught.value.body.type == REQUEST_REFUSED.type


def test_an_unknown_outcome_has_its_own_error_class(connected: Connected) -> None:
    api = TasksApiInMemory()
    api.before = first(problem(UNKNOWN_OUTCOME))
    with pytest.raises(UnknownOutcomeError):
        connected(api).submit("acedata", {"prompt": "a tree"})


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (httpx.Response(403, json={"message": "Forbidden"}), PermissionDeniedError, "execute-api:Invoke"),
        (httpx.Response(404, json={"message": "Not Found"}), UnexpectedResponseError, "has no tasks API"),
        (httpx.Response(429, json={"message": "Too Many Requests"}), TasksApiError, "Too Many Requests"),
        (httpx.Response(504, json={"message": "Endpoint request timed out"}), TasksApiError, "HTTP 504"),
        (httpx.Response(418, text="I'm a teapot"), UnexpectedResponseError, "418"),
        (
            httpx.Response(200, text="<html>a login page</html>"),
            UnexpectedResponseError,
            "not that of this version's tasks API",
        ),
        (httpx.Response(200, json={"tasks": [{"task": "x"}]}), UnexpectedResponseError, "tasks.0.provider"),
        (httpx.ConnectError("no route"), APIConnectionError, "does not respond"),
    ],
    ids=["403", "404", "429", "504", "418", "html", "another shape", "no connection"],
)
def test_unexpected_responses_raise_the_matching_error(
    connected: Connected, answer: httpx.Response | Exception, error: type[Exception], words: str
) -> None:
    api = TasksApiInMemory()
    api.before = first(*[answer] * 10)
    with pytest.raises(error, match=words):
        connected(api).page()


def test_unknown_fields_of_a_later_version_are_ignored(connected: Connected) -> None:
    page = {"tasks": [a_task("t1").model_dump(mode="json", by_alias=True) | {"colour": "blue"}], "weather": "fine"}
    api = TasksApiInMemory()
    api.before = first(httpx.Response(200, json=page))
    assert [task.task_id for task in connected(api).page().tasks] == ["t1"]


# ------------------------------------------------------------------------------------------------ images


def test_an_image_is_requested_without_the_authorization_header() -> None:
    image = an_image("t1", b"an image")
    api = TasksApiInMemory([a_task("t1", images=[image])], {image.key or "": b"an image"})
    client = api.client(auth=httpx.BasicAuth("caller", "secret"))
    link = client.image_link("flux-kontext", "t1", "result", 0)
    with client.open_link(link) as response:  # S3 refuses a presigned URL with an Authorization header
        assert response.read() == b"an image"
    assert all("Authorization" in request.headers for request in api.requests[:-1])
    assert "Authorization" not in api.requests[-1].headers


def test_a_link_to_a_missing_image_is_an_error() -> None:
    api = TasksApiInMemory()
    with pytest.raises(TasksApiError, match="HTTP 404"), api.client().open_link("https://storage.example/gone"):
        pass


def test_an_asynchronous_client_streams_an_image() -> None:
    image = an_image("t1", b"an image")
    api = TasksApiInMemory([a_task("t1", images=[image])], {image.key or "": b"an image"})

    async def read() -> bytes:
        async with AsyncTasksClient(API, httpx.BasicAuth("caller", "x"), transport=httpx.MockTransport(api)) as client:
            link = await client.image_link("flux-kontext", "t1", "result", 0)
            async with client.open_link(link, from_byte=3) as response:
                return await response.aread()

    assert run(read()) == b"image"


def test_an_interrupted_download_is_a_connection_error_in_an_event_loop() -> None:
    api = TasksApiInMemory()
    api.before = first(httpx.ReadError("lost"))

    async def read() -> None:
        client = AsyncTasksClient(API, transport=httpx.MockTransport(api))
        async with client.open_link("https://storage.example/image"):
            pass

    with pytest.raises(APIConnectionError, match="interrupted"):
        run(read())


def test_requests_of_one_event_loop_run_at_the_same_time() -> None:
    arrived: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        arrived.append(request.url.path)
        async with asyncio.timeout(60):
            while len(arrived) < 5:
                await asyncio.sleep(0)
        return TasksApiInMemory([a_task(f"t{n}") for n in range(5)])(request)

    async def look_up() -> list[str]:
        async with AsyncTasksClient(API, transport=httpx.MockTransport(answer)) as client:
            tasks = await asyncio.gather(*(client.task("flux-kontext", f"t{n}") for n in range(5)))
            return [task.task_id for task in tasks]

    assert run(look_up()) == [f"t{n}" for n in range(5)]


def test_a_client_is_a_context_manager() -> None:
    with TasksClient("https://api.example", transport=httpx.MockTransport(TasksApiInMemory())) as client:
        assert client.page().tasks == ()
