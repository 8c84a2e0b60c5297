"""Python client of the tasks API, which `docs/tasks-api.openapi.yaml` specifies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def connect(
    stack_name: str | None = None,
    *,
    local: bool = False,
    state_dir: str | None = None,
    region: str | None = None,
    profile: str | None = None,
) -> "TasksClient":
    """Returns a client of the deployed stack with this name, or with `local`, of the local stack of `make up`.

    `state_dir` is the folder of a local stack's state (default: .local). Without arguments, the stack is selected like
    the command line does it: see docs/command-line.md.

    Raises:
        UsageError: the arguments and configuration files do not determine a stack; nothing was sent.
        CatchlightError: there is no such stack, or it cannot be read with these credentials.
    """
    with explained_errors():
        return TasksClient.of(StackChoice(stack_name, local, state_dir, region, profile).find())


def _blocking(
    operation: Callable[Concatenate[Operations, Parameters], Operation[Result]],
) -> Callable[Concatenate["TasksClient", Parameters], Result]:
    """Returns the method of TasksClient that runs an operation."""

    def method(self: "TasksClient", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return self._run(operation(self._operations, *args, **kwargs))

    document(method, operation)
    return method


def _blocking_pages(
    operation: Callable[Concatenate[Operations, Parameters], Pages],
) -> Callable[Concatenate["TasksClient", Parameters], Iterator[TaskPage]]:
    """Returns the method of TasksClient that yields pages."""

    def method(self: "TasksClient", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Iterator[TaskPage]:
        pages = operation(self._operations, *args, **kwargs)
        page: TaskPage | None = None
        while requested := next_page(pages, page):
            page = self._run(requested)
            yield page

    document(method, operation, Iterator[TaskPage])
    return method


def _blocking_tasks(
    operation: Callable[Concatenate[Operations, Parameters], Pages],
) -> Callable[Concatenate["TasksClient", Parameters], Iterator[TaskResponse]]:
    """Returns the method of TasksClient that yields the tasks of pages."""
    pages = _blocking_pages(operation)

    def method(self: "TasksClient", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Iterator[TaskResponse]:
        for page in pages(self, *args, **kwargs):
            yield from page.tasks

    document(method, operation, Iterator[TaskResponse])
    return method


class TasksClient:
    """Submits, registers, looks up, lists and waits for tasks, and opens their images. Thread-safe.

    After failed connections, HTTP 429 and HTTP 5xx, requests that are safe to repeat are retried by `retry_policy`: GET
    requests, registrations and, because they have idempotency keys, submissions.

    Every method may raise:
        TasksApiError: see `catchlight.client.errors`.
        BotoCoreError: the credentials cannot be obtained or renewed.
    """

    def __init__(
        self,
        base_url: str,
        auth: httpx.Auth | None = None,
        *,
        trust_environment: bool = True,
        retry_policy: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.retry_policy = retry_policy or RetryPolicy()
        self._operations = Operations(base_url, self.retry_policy)
        shared: dict[str, Any] = {"trust_environment": trust_environment, "timeout": TIMEOUT, "transport": transport}
        self._api = http_client(httpx.Client, auth=auth, **shared)
        # Image links are presigned; the credentials for the tasks API must not be sent to S3.
        self._storage = http_client(httpx.Client, **shared)

    @classmethod
    def of(cls, stack: Stack) -> Self:
        """Returns a client of a stack that signs requests with the credentials of the stack's session."""
        return cls(stack.require_tasks_api(), SignedRequests.of(stack.session), trust_environment=not stack.is_local)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._api.close()
        self._storage.close()

    submit = _blocking(Operations.submit)
    release_key = _blocking(Operations.release_key)
    register = _blocking(Operations.register)
    task = _blocking(Operations.task)
    wait = _blocking(Operations.wait)
    page = _blocking(Operations.page)
    pages = _blocking_pages(Operations.pages)
    tasks = _blocking_tasks(Operations.tasks)
    image_link = _blocking(Operations.image_link)

    @contextmanager
    def open_link(self, link: str, *, from_byte: int = 0) -> Iterator[httpx.Response]:
        """Streams an image. Status 206 means that the bytes begin at `from_byte`, 200 that the image is complete.

        Raises:
            TasksApiError: S3 did not respond, or refused the request.
        """
        with (
            explained_download(),
            self._storage.stream("GET", link, headers=link_headers(from_byte)) as response,
        ):
            check_download(response)
            yield response

    def _run(self, operation: Operation[Result]) -> Result:
        try:
            step = next(operation)
            while True:
                try:
                    response = self._perform(step)
                except httpx.RequestError as exc:
                    step = operation.throw(exc)
                else:
                    step = operation.send(response)
        except StopIteration as end:
            result: Result = end.value
            return result

    def _perform(self, step: Step) -> httpx.Response | None:
        if isinstance(step, Pause):
            self.retry_policy.sleep(step.seconds)
            return None
        return self._api.request(step.method, step.url, **step.content)
