"""Asynchronous Python client of the tasks API, with the operations of TasksClient."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from catchlight.api.response_models import TaskPage, TaskResponse
from catchlight.client.aws_errors import explained_errors
from catchlight.client.http_client import TIMEOUT, http_client
from catchlight.client.operations import (
    Operation,
    Operations,
    Pages,
    Pause,
    Step,
    check_download,
    document,
    explained_download,
    link_headers,
    next_page,
)
from catchlight.client.retrying import RetryPolicy
from catchlight.client.signing import SignedRequests
from catchlight.client.stack import Stack, StackChoice

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def connect_async(
    stack_name: str | None = None,
    *,
    local: bool = False,
    state_dir: str | None = None,
    region: str | None = None,
    profile: str | None = None,
) -> "AsyncTasksClient":
    """Returns an asynchronous client of the stack that `connect` selects with these arguments.

    Blocks while it reads the stack's outputs from CloudFormation: call it once, when the program starts.

    Raises:
        UsageError: the arguments and configuration files do not determine a stack; nothing was sent.
        CatchlightError: there is no such stack, or it cannot be read with these credentials.
    """
    with explained_errors():
        return AsyncTasksClient.of(StackChoice(stack_name, local, state_dir, region, profile).find())


def _awaiting(
    operation: Callable[Concatenate[Operations, Parameters], Operation[Result]],
) -> Callable[Concatenate["AsyncTasksClient", Parameters], Awaitable[Result]]:
    """Returns the method of AsyncTasksClient that runs an operation."""

    async def method(self: "AsyncTasksClient", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return await self._run(operation(self._operations, *args, **kwargs))

    document(method, operation)
    return method


def _awaiting_pages(
    operation: Callable[Concatenate[Operations, Parameters], Pages],
) -> Callable[Concatenate["AsyncTasksClient", Parameters], AsyncIterator[TaskPage]]:
    """Returns the method of AsyncTasksClient that yields pages."""

    async def method(
        self: "AsyncTasksClient", /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> AsyncIterator[TaskPage]:
        pages = operation(self._operations, *args, **kwargs)
        page: TaskPage | None = None
        while requested := next_page(pages, page):
            page = await self._run(requested)
            yield page

    document(method, operation, AsyncIterator[TaskPage])
    return method


def _awaiting_tasks(
    operation: Callable[Concatenate[Operations, Parameters], Pages],
) -> Callable[Concatenate["AsyncTasksClient", Parameters], AsyncIterator[TaskResponse]]:
    """Returns the method of AsyncTasksClient that yields the tasks of pages."""
    pages = _awaiting_pages(operation)

    async def method(
        self: "AsyncTasksClient", /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> AsyncIterator[TaskResponse]:
        async for page in pages(self, *args, **kwargs):
            for task in page.tasks:
                yield task

    document(method, operation, AsyncIterator[TaskResponse])
    return method


class AsyncTasksClient:
    """TasksClient for asyncio: `async with connect_async("catchlight") as api: await api.submit(...)`.

    Its methods have the same arguments, results and errors as those of TasksClient. Use it in one event loop only.
    """

    def __init__(
        self,
        base_url: str,
        auth: httpx.Auth | None = None,
        *,
        trust_environment: bool = True,
        retry_policy: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.retry_policy = retry_policy or RetryPolicy()
        self._operations = Operations(base_url, self.retry_policy)
        shared: dict[str, Any] = {"trust_environment": trust_environment, "timeout": TIMEOUT, "transport": transport}
        self._api = http_client(httpx.AsyncClient, auth=auth, **shared)
        # Image links are presigned; the credentials for the tasks API must not be sent to S3.
        self._storage = http_client(httpx.AsyncClient, **shared)

    @classmethod
    def of(cls, stack: Stack) -> Self:
        """Returns a client of a stack that signs requests with the credentials of the stack's session."""
        return cls(stack.require_tasks_api(), SignedRequests.of(stack.session), trust_environment=not stack.is_local)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._api.aclose()
        await self._storage.aclose()

    submit = _awaiting(Operations.submit)
    release_key = _awaiting(Operations.release_key)
    register = _awaiting(Operations.register)
    task = _awaiting(Operations.task)
    wait = _awaiting(Operations.wait)
    page = _awaiting(Operations.page)
    pages = _awaiting_pages(Operations.pages)
    tasks = _awaiting_tasks(Operations.tasks)
    image_link = _awaiting(Operations.image_link)

    @asynccontextmanager
    async def open_link(self, link: str, *, from_byte: int = 0) -> AsyncIterator[httpx.Response]:
        """Streams an image. Status 206 means that the bytes begin at `from_byte`, 200 that the image is complete.

        Raises:
            TasksApiError: S3 did not respond, or refused the request.
        """
        with explained_download():
            async with self._storage.stream("GET", link, headers=link_headers(from_byte)) as response:
                check_download(response)
                yield response

    async def _run(self, operation: Operation[Result]) -> Result:
        try:
            step = next(operation)
            while True:
                try:
                    response = await self._perform(step)
                except httpx.RequestError as exc:
                    step = operation.throw(exc)
                else:
                    step = operation.send(response)
        except StopIteration as end:
            result: Result = end.value
            return result

    async def _perform(self, step: Step) -> httpx.Response | None:
        if isinstance(step, Pause):
            await self.retry_policy.async_sleep(step.seconds)
            return None
        return await self._api.request(step.method, step.url, **step.content)
