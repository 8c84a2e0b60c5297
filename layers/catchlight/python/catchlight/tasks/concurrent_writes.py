"""Makes several writes at once, so that one that fails does not prevent the others."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

# The size of botocore's connection pool. A hundred registrations take about half a second; writing the reports of 50
# tasks with missed callbacks takes as long as five calls.
MAX_CONCURRENT_WRITES = 10


def write_all(
    writes: Mapping[str, Callable[[], Result]],
) -> tuple[dict[str, Result], dict[str, BaseException]]:
    """Makes one write per task. Returns the results of those that succeeded and the errors of the others, by task."""
    with ThreadPoolExecutor(MAX_CONCURRENT_WRITES) as pool:
        running = {task: pool.submit(write) for task, write in writes.items()}
    errors = {task: error for task, write in running.items() if (error := write.exception())}
    return {task: write.result() for task, write in running.items() if task not in errors}, errors
