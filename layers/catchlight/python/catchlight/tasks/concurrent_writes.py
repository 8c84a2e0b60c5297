"""Makes several writes at once, so that one that fails does not prevent the others."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

# The size of botocore's connection pool. A hundred registrations take about half a second; writing the reports of 50
# tasks with missed callbacks takes as long as five calls.
MAX_CONCURRENT_WRITES = 10


def write_all(writes: Mapping[str, Callable[[], Result]]) -> tuple[dict[str, Result], dict[str, Exception]]:
    """Makes one write per task. Returns the results of those that succeeded and the errors of the others, by task."""
    with ThreadPoolExecutor(MAX_CONCURRENT_WRITES) as pool:
        running = {task: pool.submit(write) for task, write in writes.items()}
    results, errors = {}, {}
    for task, write in running.items():
        try:
            results[task] = write.result()
        except Exception as exc:  # noqa: BLE001 - the caller reports it
            errors[task] = exc
    return results, errors
