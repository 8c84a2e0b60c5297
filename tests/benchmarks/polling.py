"""Measures polling of 500 tasks, compared with the usual implementations.

    make bench FOR=polling

Each variant runs in its own process, in turns; memory is measured above that of an idle process after all imports.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

import httpx

from catchlight.aws.dynamodb import UpdateExpression
from catchlight.dispatch import PollState
from catchlight.models import TaskStatus, split_task_key
from catchlight.polling.poll_round import Polling
from catchlight.polling.provider_client import ProviderClient
from catchlight.providers import PROVIDERS
from catchlight.settings import PollTasksSettings
from catchlight.tasks.table import TasksTable, UpdateResult
from catchlight.tasks.task import Task
from tests.benchmarks.figures import Figure, Goal, Samples, compared
from tests.benchmarks.memory import peak_megabytes, reset_peak

TASKS = 500
RESPONSE_SECONDS = 0.1
WRITE_SECONDS = 0.006  # duration of a DynamoDB write within the region
RUNS = 7
PATH = "/api/v1/flux/kontext/record-info"

# The ratio to the usual implementation with the same number of concurrent requests. Both wait equally long for the
# provider, so the ratio does not depend on the machine's speed.
GOAL = Goal(1.0)
GOAL_MEGABYTES = 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one variant."""

    seconds: float
    cpu_seconds: float
    megabytes: float  # above idle


class DelayedTable(TasksTable):
    """A table with realistic delays and without stored tasks."""

    def __init__(self) -> None:
        super().__init__("tasks", None)  # type: ignore[arg-type] # no call reaches DynamoDB

    def get_many(self, tasks: Sequence[str], **_: Any) -> dict[str, Task]:
        """Returns all tasks as pending."""
        time.sleep(WRITE_SECONDS)
        return {
            task: Task(task=task, provider=split_task_key(task)[0], status=TaskStatus.PENDING, rank=0) for task in tasks
        }

    def update(self, task: str, update: UpdateExpression, **_: Any) -> UpdateResult:
        """Accepts the update."""
        update.arguments()
        time.sleep(WRITE_SECONDS)
        return UpdateResult(True, {})


def poll_requests(url: str, provider: str = "flux-kontext") -> None:
    """Polls as Catchlight does, without writing reports."""
    client = ProviderClient({provider: url})
    tasks = [f"task{number}" for number in range(TASKS)]
    responses = client.request_statuses(PROVIDERS[provider], tasks, api_key="key", now=lambda: datetime.now(UTC))
    assert len(responses.reports) == TASKS, responses.errors
    client.close()


def poll_requests_in_batches(url: str) -> None:
    """Polls as Catchlight does a provider whose responses contain up to 50 tasks."""
    poll_requests(url, "acedata")


def poll_and_record(url: str) -> None:
    """Polls as PollTasks does: ten executions of 50 tasks in sequence. All reports are written."""
    from catchlight.aws.secrets import provider_keys

    client = ProviderClient({"flux-kontext": url})
    settings = PollTasksSettings(
        tasks_table="tasks",
        provider_keys_secret="keys",
        poll_interval_seconds=30,
        images_bucket="images",
        slow_poll_after_seconds=900,
        slow_poll_interval_seconds=120,
        give_up_after_seconds=21600,
    )
    keys = provider_keys('{"flux-kontext": {"apiKey": "key"}}', "flux-kontext")
    polling = Polling(
        settings,
        DelayedTable(),
        client,
        lambda _: keys,
        keep_unreadable=print,
        now=lambda: datetime.now(UTC),
    )
    for start in range(0, TASKS, 50):
        tasks = tuple(f"flux-kontext#task{number}" for number in range(start, start + 50))
        poll_round = polling.poll(PollState(tasks=tasks, wait_seconds=60), deadline=float("inf"))
        assert len(poll_round.recorded) == 50
    client.close()


def thirty_two_threads(url: str) -> None:
    """Polls with one client and a pool of 32 threads, as the documentation of httpx suggests."""
    with httpx.Client(trust_env=False) as client, ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda number: client.get(url + PATH, params={"taskId": str(number)}).json(), range(TASKS)))


def one_client_for_all(url: str) -> None:
    """Polls with one client, and as many threads and connections as Catchlight."""
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    with httpx.Client(trust_env=False, limits=limits) as client, ThreadPoolExecutor(64) as pool:
        list(pool.map(lambda number: client.get(url + PATH, params={"taskId": str(number)}).json(), range(TASKS)))


def asyncio_client(url: str) -> None:
    """Polls with as many concurrent requests as Catchlight, without threads."""

    async def poll_all() -> None:
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        async with httpx.AsyncClient(trust_env=False, limits=limits, timeout=60) as client:
            responses = (client.get(url + PATH, params={"taskId": str(number)}) for number in range(TASKS))
            for response in await asyncio.gather(*responses):
                response.json()

    asyncio.run(poll_all())


VARIANTS: Mapping[str, Callable[[str], None]] = {
    variant.__name__: variant
    for variant in (
        poll_requests,
        poll_requests_in_batches,
        poll_and_record,
        thirty_two_threads,
        one_client_for_all,
        asyncio_client,
    )
}


def run_in_this_process(variant: str, url: str) -> Run:
    """Runs a variant in this process."""
    reset_peak()
    idle = peak_megabytes()
    started_at, cpu = time.perf_counter(), time.process_time()
    VARIANTS[variant](url)
    seconds, cpu_seconds = time.perf_counter() - started_at, time.process_time() - cpu
    return Run(seconds, cpu_seconds, peak_megabytes() - idle)


def run_in_new_process(variant: str, url: str) -> Run:
    """Runs a variant in its own process."""
    command = [sys.executable, "-m", "tests.benchmarks.polling", variant, url]
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return Run(**json.loads(process.stdout))


@contextmanager
def a_provider() -> Iterator[str]:
    """Starts a provider and yields its base URL."""
    command = [sys.executable, "-m", "tests.benchmarks.polling_provider", str(RESPONSE_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def measure() -> list[Figure]:
    """Measures every variant, in turns."""
    runs: dict[str, list[Run]] = {variant: [] for variant in VARIANTS}
    with a_provider() as url:
        for _ in range(RUNS):
            for variant, taken in runs.items():
                if variant != "asyncio_client" or not taken:  # one run of that variant is enough
                    taken.append(run_in_new_process(variant, url))
    seconds = {variant: Samples([run.seconds for run in taken]) for variant, taken in runs.items()}
    cpu = {variant: Samples([run.cpu_seconds for run in taken]) for variant, taken in runs.items()}
    threads, shared = "httpx, one client, 32 threads", "httpx, one client, 64 threads"
    (asyncio_run,) = runs["asyncio_client"]
    return [
        compared("500 tasks polled", seconds["poll_requests"], "s", shared, seconds["one_client_for_all"], GOAL),
        compared("the same, CPU time", cpu["poll_requests"], "s", shared, cpu["one_client_for_all"], GOAL),
        compared("500 tasks polled", seconds["poll_requests"], "s", threads, seconds["thirty_two_threads"]),
        Figure(
            "the same, memory above idle",
            median(run.megabytes for run in runs["poll_requests"]),
            "MB",
            goal=Goal(GOAL_MEGABYTES, of="value"),
        ),
        compared(
            "500 tasks of Ace Data, 50 to a request",
            seconds["poll_requests_in_batches"],
            "s",
            "one to a request",
            seconds["poll_requests"],
        ),
        Figure(
            "500 tasks in ten executions, in turn, with all reports written", seconds["poll_and_record"].median, "s"
        ),
        Figure(
            "httpx.AsyncClient with asyncio",
            asyncio_run.seconds,
            "s",
            "Catchlight",
            seconds["poll_requests"].median,
            asyncio_run.seconds / seconds["poll_requests"].median,
        ),
    ]


def main() -> None:
    """Runs a variant and prints the result as JSON."""
    run = run_in_this_process(*sys.argv[1:3])
    print(json.dumps({"seconds": run.seconds, "cpu_seconds": run.cpu_seconds, "megabytes": run.megabytes}))  # noqa: T201


if __name__ == "__main__":
    main()
