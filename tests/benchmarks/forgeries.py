"""Computes the cost of forged callbacks: the work that a sender with the callback token can cause.

    .venv/bin/python -m tests.benchmarks.forgeries

The real functions run in an in-memory account, as for the bill of tasks (`bill`). The provider does not know the tasks,
and image hosts respond as slowly as possible. The figures are upper bounds: the most expensive callback of each kind.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from catchlight.archiving.archiver import MAX_UNKNOWN_IMAGES
from catchlight.errors import ImageUnavailableError
from catchlight.images.stream import MAX_IMAGE_BYTES, ImageStream
from catchlight.models import MAX_IMAGES_PER_TASK
from functions.receive_callback.app import MAX_BODY_BYTES
from tests.benchmarks.bill import costs, duration, prices
from tests.benchmarks.bill_run import REPOSITORY, CountedStack, _as_record, counted_stack
from tests.benchmarks.bill_units import walk
from tests.benchmarks.bill_usage import Invocation
from tests.canary_secrets import CALLBACK_TOKEN

THOUSAND = 1000
GB = 1e9
# The default of CallbackRateLimit.
CALLBACKS_PER_SECOND = 100.0

Body = Mapping[str, Any] | str


@dataclass(frozen=True)
class Forgery:
    """A kind of forged callback."""

    name: str
    body: Callable[[int], Body]  # by the number of the callback
    provider: str = "flux-kontext"
    callbacks: int = 4  # number of callbacks in the run
    is_one_task: bool = False  # whether all callbacks have the same task id

    def task_id(self, number: int) -> str:
        return f"{0 if self.is_one_task else number:032x}"


@dataclass(frozen=True)
class Cost:
    """The cost of a thousand forged callbacks of one kind."""

    transitions: float
    provider_requests: float  # requests to the provider
    writes: float  # to the table and the bucket
    object_bytes: float  # in quarantine, and of unreadable bodies
    item_bytes: float  # with their entries in byStatus
    dollars: float
    executions: int  # of all callbacks in the run


def failure(number: int) -> Body:
    return {"code": 501, "msg": f"forged {number}"}


def success(number: int) -> Body:
    """Returns a success with the maximum number of images, and URLs as long as a callback can have."""
    length = MAX_BODY_BYTES // MAX_IMAGES_PER_TASK - 100
    start = f"https://{number}.aiquickdraw.com/"
    urls = [f"{start}{image:02}{'u' * (length - len(start))}" for image in range(MAX_IMAGES_PER_TASK)]
    return {"code": 200, "data": {"state": "success", "resultJson": json.dumps(urls)}}


def hint(number: int) -> Body:
    return {"code": 200, "msg": "forged"}


def original(number: int) -> Body:
    return {"code": 200, "data": {"info": {"originImageUrl": f"https://{number}.aiquickdraw.com/original.png"}}}


def running(number: int) -> Body:
    return {"code": 200, "data": {"state": "waiting"}}


def any_result(number: int) -> Body:
    kinds = (hint, failure, success)
    return kinds[number % 3](number) if number % 3 != 2 else {"code": 200, "data": {"info": info(number)}}


def info(number: int) -> Mapping[str, str]:
    return {"resultImageUrl": f"https://{number}.aiquickdraw.com/forged.png"}


def unreadable(number: int) -> Body:
    return f"{number} is not JSON".ljust(MAX_BODY_BYTES, ".")


FORGERIES = (
    Forgery("a failure", failure),
    Forgery("a success of 32 images", success, provider="kie-market"),
    Forgery("a success without a URL", hint),
    Forgery("a success with an original only", original),
    Forgery("a task that is still running", running, provider="kie-market"),
    Forgery("twenty different ones of one task", any_result, callbacks=20, is_one_task=True),
    Forgery("an unreadable body", unreadable),
)


class SlowPictures:
    """Image hosts that do not respond before the deadline."""

    def __init__(self) -> None:
        self.fetched = 0

    def fetch(self, url: str, allowed_hosts: object) -> ImageStream:
        self.fetched += 1
        raise ImageUnavailableError("the image did not arrive within 7.5 s")


class AttackedStack(CountedStack):
    """A stack that receives forged callbacks for tasks that do not exist at the provider."""

    def __init__(self, template: Any) -> None:
        super().__init__(template)
        self.pictures = SlowPictures()  # type: ignore[assignment]

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Responds as the provider does for a task that does not exist."""
        with self._lock:
            self._provider_requests += 1
        return httpx.Response(200, json={"code": 422, "msg": "recordInfo is null", "data": None})

    def forge(self, forgery: Forgery) -> None:
        """Delivers the callbacks in sequence, and runs all functions that each of them starts."""
        for number in range(forgery.callbacks):
            answer = self._invoke("ReceiveCallback", event(forgery, number))
            assert answer["statusCode"] == (200 if isinstance(forgery.body(number), Mapping) else 400), answer
            self.usage.callbacks += 1
            self.usage.tasks += 1
            self._run_functions()

    def item_bytes(self) -> int:
        """Returns the bytes of the largest item, and of its entry in the index byStatus."""
        return 2 * max(self.usage.item_sizes.values(), default=0)

    def objects_bytes(self) -> int:
        """Returns the bytes of all objects, in all versions."""
        versions = self._observer.client("s3").list_object_versions(Bucket="images-bucket").get("Versions", [])
        return sum(version["Size"] for version in versions)

    def _run_functions(self) -> None:
        self._deliver_changes()
        while messages := self._received(self._poll_queue, 50):
            self._invoke("StartPolling", {"Records": [_as_record(message) for message in messages]})
            executions, self._executions = self._executions, []
            for state in executions:
                self.usage.executions += 1
                self.usage.transitions += sum(1 for _ in walk(self.definition, state, self._poll))
            self._deliver_changes()

    def _poll(self, state: dict[str, Any], seconds: float) -> dict[str, Any]:
        next_state: dict[str, Any] = self._invoke("PollTasks", state)
        self._deliver_changes()
        return next_state

    def _archive(self) -> None:
        tries = Counter[str]()
        messages = list(self._received(self._queue, 5))
        while messages:
            for message in messages:
                tries[message["MessageId"]] += 1
            records = [self._archive_record(message, tries[message["MessageId"]]) for message in messages]
            failed = {
                failure["itemIdentifier"]
                for failure in self._invoke("ArchiveImages", {"Records": records})["batchItemFailures"]
            }
            messages = [message for message in messages if message["MessageId"] in failed]
            if messages:
                self.usage.received.append(len(messages))

    @staticmethod
    def _archive_record(message: Mapping[str, Any], receives: int) -> dict[str, Any]:
        record = _as_record(message)
        return record | {"attributes": record["attributes"] | {"ApproximateReceiveCount": str(receives)}}


def event(forgery: Forgery, number: int) -> dict[str, Any]:
    """Returns the event of a forged callback."""
    found: dict[str, Any] = json.loads((REPOSITORY / "events/callbacks/flux-kontext/success.json").read_text())
    body = forgery.body(number)
    if isinstance(body, Mapping):
        body = json.dumps({**body, "taskId": forgery.task_id(number)})
    assert len(body) <= MAX_BODY_BYTES
    return found | {"pathParameters": {"provider": forgery.provider, "token": CALLBACK_TOKEN}, "body": body}


@cache
def cost(forgery: Forgery) -> Cost:
    """Runs the callbacks and returns the cost of a thousand of them."""
    with counted_stack(AttackedStack) as stack:
        stack.forge(forgery)
        usage, template = stack.usage, stack.template
        timeout = template.resources["ArchiveImagesFunction"]["Properties"]["Timeout"]

        def longest_duration(invocation: Invocation) -> float:
            # Image hosts delay each download as long as possible.
            return float(timeout) if invocation.function == "ArchiveImages" else duration(invocation)

        dollars = costs(usage, template, tasks_per_second=CALLBACKS_PER_SECOND, seconds_of=longest_duration)
        tries_images = any(invocation.function == "ArchiveImages" for invocation in usage.invocations)
        share = THOUSAND / forgery.callbacks
        tasks = 1 if forgery.is_one_task else forgery.callbacks
        # An image either delays each try or is stored; the upper bound counts both.
        most_images = 1 if forgery.body is original else MAX_UNKNOWN_IMAGES
        images = most_images * tasks if tries_images else 0
        writes = usage.calls("dynamodb:UpdateItem") + usage.calls("s3:PutObject") + images
        return Cost(
            transitions=usage.transitions * share,
            provider_requests=sum(invocation.provider_requests for invocation in usage.invocations) * share,
            writes=writes * share,
            object_bytes=(stack.objects_bytes() + images * MAX_IMAGE_BYTES) * share,
            item_bytes=tasks * stack.item_bytes() * share,
            dollars=(sum(dollars.values()) + images * prices()["per_unit"]["S3 put"]) * share,
            executions=usage.executions,
        )


def dollars_per_month(cost: Cost) -> float:
    """Returns the monthly storage price in US dollars of the data that a thousand callbacks cause."""
    price = prices()["per_stored_gb_month"]
    return float(cost.object_bytes * price["S3"] + cost.item_bytes * price["DynamoDB"]) / GB


def rows(forgeries: Sequence[Forgery] = FORGERIES) -> Iterator[tuple[str, Cost]]:
    """Yields the name and the cost of each kind of callback."""
    for forgery in forgeries:
        yield forgery.name, cost(forgery)


def main() -> None:
    """Prints the table."""
    table = Table(title="A thousand forged callbacks", title_justify="left")
    columns = (
        "transitions",
        "provider_requests",
        "writes",
        "GB of objects",
        "MB of items",
        "$",
        "$ a month",
        "executions",
    )
    table.add_column("each callback reports")
    for column in columns:
        table.add_column(column, justify="right")
    for name, found in rows():
        table.add_row(
            name,
            f"{found.transitions:,.0f}",
            f"{found.provider_requests:,.0f}",
            f"{found.writes:,.0f}",
            f"{found.object_bytes / GB:,.3f}",
            f"{found.item_bytes / 1e6:,.3f}",
            f"{found.dollars:.3f}",
            f"{dollars_per_month(found):.3f}",
            f"{found.executions}",
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
