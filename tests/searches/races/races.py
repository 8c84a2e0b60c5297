"""Updates one item with many concurrent writers: exactly one write must succeed, and the item must have its values."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import TYPE_CHECKING

from catchlight.models import Image, ImageKind, Reporter, TaskReport, TaskStatus, task_key
from catchlight.tasks.images import TaskImages
from catchlight.tasks.registration import Registry
from catchlight.tasks.reports import ReportOutcome, Reports
from catchlight.tasks.table import TasksTable
from catchlight.tasks.task import Task

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

NOW = datetime(2026, 1, 6, tzinfo=UTC)
PROVIDER = "flux-kontext"

# Makes the write of one writer, given by its number, and returns whether it succeeded.
Write = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class Race:
    """A kind of race.

    `begin` prepares the item of a task id and returns the writers' function; `has_winners_values` checks the item.
    """

    name: str
    begin: Callable[[str], Write]
    has_winners_values: Callable[[Task, int], bool]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one kind of race, over all keys."""

    name: str
    keys: int
    writers: int
    with_one_winner: int
    with_winners_values: int

    @property
    def has_passed(self) -> bool:
        """Whether every race had one winner, and the item has this winner's values."""
        return self.with_one_winner == self.with_winners_values == self.keys


def run(table_name: str, client: "DynamoDBClient", *, keys: int, writers: int) -> Iterator[Result]:
    """Runs every kind of race, for this many keys each."""
    table = TasksTable(table_name, client)
    with ThreadPoolExecutor(writers) as pool:
        for race in _races(table):
            one_winner = winners_values = 0
            for number in range(keys):
                task_id = f"{race.name}-{number}"
                write, start = race.begin(task_id), Barrier(writers)

                def writer(place: int, write: Write = write, start: Barrier = start) -> bool:
                    start.wait(60)
                    return write(place)

                winners = [place for place, has_won in enumerate(pool.map(writer, range(writers))) if has_won]
                one_winner += len(winners) == 1
                task = table.get(task_key(PROVIDER, task_id))
                winners_values += task is not None and bool(winners) and race.has_winners_values(task, winners[0])
            yield Result(race.name, keys, writers, one_winner, winners_values)


def _races(table: TasksTable) -> tuple[Race, ...]:
    reports, images, registry = Reports(table), TaskImages(table), Registry(table)

    def report(task_id: str) -> Write:
        return lambda place: reports.record(_success(task_id, place)).outcome is ReportOutcome.APPLIED

    def registration(task_id: str) -> Write:
        return lambda place: registry.register(PROVIDER, [task_id], now=NOW + timedelta(seconds=place))[0]

    def renewal(task_id: str) -> Write:
        reports.record(_success(task_id, 99))
        read = table.get(task_key(PROVIDER, task_id))
        assert read is not None
        return lambda place: images.replace(read, {0: _image(place)}, now=NOW + timedelta(hours=1, seconds=place))

    def has_url(task: Task, winner: int) -> bool:
        return task.images[0].url == _image(winner).url

    def has_time(task: Task, winner: int) -> bool:
        return (task.registered_at or "").endswith(f":{winner:02}.000Z")

    return (
        Race("report", report, has_url),
        Race("registration", registration, has_time),
        Race("renewal", renewal, has_url),
    )


def _success(task_id: str, place: int) -> TaskReport:
    return TaskReport(
        provider=PROVIDER,
        task_id=task_id,
        status=TaskStatus.SUCCEEDED,
        reported_by=Reporter.CALLBACK if place % 2 else Reporter.POLL,
        reported_at=NOW + timedelta(seconds=place),
        images=(_image(place),),
    )


def _image(place: int) -> Image:
    url = f"https://tempfile.aiquickdraw.com/{place}.png"
    return Image(kind=ImageKind.RESULT, url=url, expires_at=NOW + timedelta(days=1))
