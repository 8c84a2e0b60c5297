"""Measures the saturation of the local stack under concurrency: callbacks, and the time from callback to object.

    make bench FOR=scale

The results are for orientation: they show the limits of the local stack on one machine, not the limits of AWS.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3

from tests.benchmarks import scale_simulation
from tests.benchmarks.figures import Figure
from tests.image_server import picture, serving

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client

CONCURRENCIES = (1, 8, 64)
CALLBACKS = 192
OBJECTS = 64
LONGEST_SECONDS = 60
IMAGE_HOST = "localhost"


@dataclass(frozen=True, slots=True)
class Throughput:
    """The throughput at one level of concurrency."""

    kind: str
    concurrency: int
    per_second: float
    median_ms: float
    slowest_twentieth_ms: float


class Stack:
    """A running local stack and the requests to it."""

    def __init__(self, info: dict[str, Any], image_url: str) -> None:
        self._url = urlsplit(info["callback_urls"]["flux-kontext"])
        self._image_url = image_url
        self._bucket = info["bucket"]
        self._table = info["table"]
        session = boto3.Session("local", "local", region_name=info["region"])
        self._s3: S3Client = session.client("s3", endpoint_url=info["aws_endpoint_url"])
        self._dynamodb: DynamoDBClient = session.client("dynamodb", endpoint_url=info["aws_endpoint_url"])
        self._numbers = count()

    def failure(self) -> float:
        """Sends a failure, which causes a single write; returns the milliseconds until the response."""
        return self._post({"code": 501, "msg": "failed", "data": {"taskId": f"f{next(self._numbers)}"}})

    def registered_to_object(self) -> float:
        """Registers a task, then sends its callback; returns the milliseconds from the callback to the object."""
        task = f"r{next(self._numbers)}"
        status = {"status": {"S": "PENDING"}, "rank": {"N": "0"}}
        item = {"task": {"S": f"flux-kontext#{task}"}, "provider": {"S": "flux-kontext"}, "taskId": {"S": task}}
        self._dynamodb.put_item(TableName=self._table, Item=item | status)
        return self.to_object(task)

    def to_object(self, task: str | None = None) -> float:
        """Sends a callback with an image; returns the milliseconds until the object exists."""
        task = task or f"s{next(self._numbers)}"
        started_at = time.perf_counter()
        self._post({"code": 200, "msg": "", "data": {"taskId": task, "info": {"resultImageUrl": self._image_url}}})
        prefix = f"images/flux-kontext/{task}/"
        while not self._s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix)["KeyCount"]:
            assert time.perf_counter() - started_at < LONGEST_SECONDS, f"{task} is not archived"
            time.sleep(0.1)
        return (time.perf_counter() - started_at) * 1000

    def _post(self, body: dict[str, Any]) -> float:
        assert self._url.hostname
        started_at = time.perf_counter()
        connection = HTTPConnection(self._url.hostname, self._url.port, timeout=LONGEST_SECONDS)
        try:
            connection.request("POST", self._url.path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
        finally:
            connection.close()
        assert response.status == 200, response.status
        return (time.perf_counter() - started_at) * 1000


@contextmanager
def a_stack() -> Iterator[Stack]:
    """Starts a stack with an image host."""
    with serving() as images, tempfile.TemporaryDirectory() as folder:
        url = images.serve("a.png", picture(), IMAGE_HOST)
        options = ["--port", "0", "--no-simulator", "--state-dir", folder]
        allowed = ["--allow-image-host", f"{IMAGE_HOST}:{images.port}"]
        limits = ["--parameter", "CallbackRateLimit=10000", "--parameter", "CallbackBurstLimit=5000"]
        command = [sys.executable, "-m", "local", "up", *options, *allowed, *limits]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            info = Path(folder) / "stack.json"
            while not info.exists():
                assert process.poll() is None, "the stack did not start"
                time.sleep(0.05)
            yield Stack(json.loads(info.read_text()), url)
        finally:
            process.terminate()
            process.wait()


def levels_of_concurrency() -> list[Throughput]:
    """Measures every level of concurrency."""
    levels = []
    with a_stack() as stack:
        for _ in range(5):  # not measured: the first requests are slower
            stack.failure()
        stack.to_object()
        for kind, most, work in (("callbacks", CALLBACKS, stack.failure), ("objects", OBJECTS, stack.to_object)):
            for concurrency in CONCURRENCIES:
                number = min(most, 12 * concurrency)
                started_at = time.perf_counter()
                with ThreadPoolExecutor(concurrency) as pool:
                    times = list(pool.map(lambda _, work=work: work(), range(number)))
                seconds = time.perf_counter() - started_at
                slowest = quantiles(times, n=20)[-1]
                levels.append(Throughput(kind, concurrency, number / seconds, median(times), slowest))
    return levels


def measure() -> list[Figure]:
    """Measures the local stack and simulates AWS."""
    figures = [
        Figure(
            f"local stack, {level.kind}, {level.concurrency} at once",
            level.per_second,
            "a second",
            note=f"median {level.median_ms:.0f} ms, 95 % within {level.slowest_twentieth_ms:.0f} ms",
        )
        for level in levels_of_concurrency()
    ]
    for outcome in scale_simulation.measure():
        setting = outcome.setting
        account = f"an account of {setting.account_concurrency}, " if setting.account_concurrency < 1000 else ""
        figures.append(
            Figure(
                f"simulated, {setting.tasks_a_second} tasks a second",
                outcome.percentile(0.99),
                "s to the object, 99 %",
                note=f"{account}CallbackRateLimit {setting.callback_rate}, "
                f"ArchiveConcurrency {setting.archive_concurrency}: "
                f"{outcome.throttled} callbacks answered 429, {outcome.not_run} without a free execution, "
                f"{outcome.refused} writes refused",
            )
        )
    return figures
