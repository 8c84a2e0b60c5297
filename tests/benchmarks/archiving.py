"""Measures the verified transfer of images from a host to S3, compared with the fastest unverified transfer.

    make bench FOR=archiving

Both use TLS on loopback; the servers run in a separate process, with 0 or 50 ms latency. The variants run in turns.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import botocore.auth
import httpx
from botocore.config import Config

from catchlight.archiving.archiver import ImageArchive
from catchlight.archiving.bucket import S3_CONFIG, ImageBucket
from catchlight.archiving.image_copier import ImageCopier
from catchlight.archiving.priority_pool import PriorityThreadPool
from catchlight.aws.clients import AwsClients
from catchlight.images.fetcher import ImageFetcher
from catchlight.images.url_policy import UrlPolicy
from catchlight.models import Image, ImageKind, TaskStatus, utc_now
from catchlight.tasks.confirmations import ConfirmationResult
from catchlight.tasks.task import Task
from tests.benchmarks.figures import Figure, Goal, Samples
from tests.benchmarks.memory import peak_megabytes, reset_peak
from tests.benchmarks.report import figure_of

SIZES = (1, 5, 25)  # megabytes
LATENCIES = (0, 50)  # milliseconds
RUNS = 15
BATCHES = 9
PIECE_BYTES = 65536
TASKS, IMAGES_PER_TASK = 5, 2

GOAL_SHARE = 0.8  # of the unverified transfer's speed
GOAL_MEGABYTES = 32.0
GOAL_BATCH_SHARE = 0.5  # of the speed that the link and the CPU allow

PATH_STYLE = Config(s3={"addressing_style": "path", "payload_signing_enabled": False})


class BenchmarkUrlPolicy(UrlPolicy):
    """A URL policy that allows this machine."""

    def check_url(self, url: str, allowed_hosts: Iterable[str]) -> str:
        """Allows any URL."""
        return "localhost"

    def resolve(self, host: str, port: int) -> list[str]:
        """Resolves to the loopback address."""
        return ["127.0.0.1"]


class HashedBody:
    """Hashes a response's body while S3's client reads it."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Returns the next bytes."""
        while len(self._left) < size and (piece := next(self._pieces, b"")):
            self.digest.update(piece)
            self._left += piece
        read, self._left = self._left[:size], self._left[size:]
        return read


class Tasks:
    """A table of tasks that have succeeded."""

    def __init__(self, urls: Mapping[str, list[str]]) -> None:
        expires_at = datetime.now(UTC) + timedelta(minutes=10)
        self._tasks = {
            task: Task(
                task=task,
                provider="flux-kontext",
                status=TaskStatus.SUCCEEDED,
                rank=TaskStatus.SUCCEEDED.rank,
                images=tuple(Image(kind=ImageKind.RESULT, url=url, expires_at=expires_at) for url in task_urls),
            )
            for task, task_urls in urls.items()
        }

    def get(self, task: str) -> Task:
        """Returns a task."""
        return self._tasks[task]

    def ignores(self, image: Image) -> bool:
        """Returns False: every image is archived."""
        return False

    def is_needed(self, task: Task, image: Image) -> bool:
        """Returns True: no image may be missing."""
        return True

    def save(self, task: Task, images: Mapping[int, Image], **_: Any) -> Task:
        """Checks the saved images."""
        assert [image.state for image in images.values()] == ["ARCHIVED"] * IMAGES_PER_TASK, images
        return task


class NoConfirmation:
    """Replaces confirmation by the provider, and the record of tries, with methods that do nothing."""

    def request_status(self, task: Task, **_: Any) -> None:
        """Sends no request."""

    def end(self, task: Task, **_: Any) -> None:
        """Records nothing: an image that fails ends the benchmark."""

    def settle(self, task: Task, _: None) -> ConfirmationResult:
        """Returns the task unchanged."""
        return ConfirmationResult(task)


class Transfers:
    """The compared transfers from the image host to S3. All of them reuse the same clients."""

    def __init__(self, folder: str, images: str, objects: str) -> None:
        self.bundle = f"{folder}/bundle.pem"
        self.images = f"https://localhost:{images}"
        self._client = httpx.Client(verify=self._create_tls_context(), trust_env=False)
        # As in Lambda, which does not have awscrt: awscrt would sign the requests, and does not accept streams.
        botocore.auth.AUTH_TYPE_MAPS["s3v4"] = botocore.auth.S3SigV4Auth
        os.environ |= {
            "AWS_ENDPOINT_URL": f"https://localhost:{objects}",
            "AWS_CA_BUNDLE": self.bundle,
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": f"{folder}/config",
        }
        Path(folder, "config").write_text("[default]\ns3 =\n  addressing_style = path\n")
        clients = AwsClients()
        self._bucket = ImageBucket(clients.s3(S3_CONFIG.merge(PATH_STYLE)), "images")
        self._plain_s3 = clients.s3(Config(request_checksum_calculation="when_required").merge(PATH_STYLE))
        self._fetcher = ImageFetcher(BenchmarkUrlPolicy())
        self._fetcher._http._tls = self._create_tls_context()
        self._number = 0
        self._objects = f"https://localhost:{objects}"
        self._kept: list[ssl.SSLSocket] = []  # connections to S3 that `bare_batch` reuses

    def ours(self, megabytes: int) -> None:
        """Uploads the image while it is downloaded, as Catchlight does: it is verified before the upload ends."""
        with self._fetcher.fetch(self._url(megabytes), []) as image:
            self._bucket.put("images/a.png", image, Task(task="a#1", status=TaskStatus.SUCCEEDED))

    def plain(self, megabytes: int, client: httpx.Client | None = None) -> None:
        """Streams the body from one connection to the other, without verification."""
        with (client or self._client).stream("GET", self._url(megabytes)) as response:
            length = int(response.headers["content-length"])
            body: Any = HashedBody(response.iter_raw())
            self._plain_s3.put_object(Bucket="images", Key="a.png", Body=body, ContentLength=length)

    def plain_over_new_connection(self, megabytes: int) -> None:
        """Streams the body over a new connection for every image."""
        with httpx.Client(verify=self._client_tls, trust_env=False) as client:
            self.plain(megabytes, client)

    def by_commands(self, megabytes: int) -> None:
        """Runs `curl | aws s3 cp -`, as a script does."""
        copy = f"curl --silent --fail --cacert {self.bundle} {self._url(megabytes)} | aws s3 cp - s3://images/a.png"
        subprocess.run(["bash", "-o", "pipefail", "-c", copy], check=True, capture_output=True, timeout=60)

    def one_by_one(self, megabytes: int) -> None:
        """Transfers the images of a batch in sequence, without verification, each over a new connection."""
        for _ in range(TASKS * IMAGES_PER_TASK):
            self.plain_over_new_connection(megabytes)

    def bare_batch(self, megabytes: int) -> None:
        """Transfers the images of a batch concurrently, with TLS and SHA-256 only: the upper limit on this machine.

        It opens a new connection to the image host for each image, and keeps those to S3. It does not parse images,
        validate the certificate's name, or handle errors.
        """
        with ThreadPoolExecutor(TASKS * IMAGES_PER_TASK) as pool:
            list(pool.map(self._bare, [self._url(megabytes) for _ in range(TASKS * IMAGES_PER_TASK)]))

    def close(self) -> None:
        """Closes the connections to S3 that `bare_batch` keeps."""
        for connection in self._kept:
            connection.close()

    def _bare(self, url: str) -> None:
        with _connect(self.images, self._client_tls) as source:
            source.sendall(f"GET /{url.split('/', 3)[3]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head, body = _read_head(source)
            left = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
            target = self._kept.pop() if self._kept else _connect(self._objects, self._client_tls)
            target.sendall(f"PUT /images/a.png HTTP/1.1\r\nHost: localhost\r\nContent-Length: {left}\r\n\r\n".encode())
            digest, piece = hashlib.sha256(), memoryview(bytearray(PIECE_BYTES))
            read: bytes | memoryview = body
            while left:
                digest.update(read)
                target.sendall(read)
                left -= len(read)
                read = piece[: source.recv_into(piece)] if left else b""
        assert _read_head(target)[0].startswith(b"HTTP/1.1 200 ")
        self._kept.append(target)

    def batch(self, megabytes: int, threads: int, messages: int) -> None:
        """Archives five tasks of two images each, as the function does."""
        names = [f"flux-kontext#task{number}" for number in range(TASKS)]
        tasks = Tasks({name: [self._url(megabytes) for _ in range(IMAGES_PER_TASK)] for name in names})
        pool = PriorityThreadPool(threads)
        no_confirmation: Any = NoConfirmation()
        table: Any = tasks
        copier = ImageCopier(self._fetcher, self._bucket, additional_hosts=(), trusts_confirmed_hosts=True, now=utc_now)
        archive = ImageArchive(
            table,
            table,
            no_confirmation,
            no_confirmation,
            no_confirmation,
            copier,
            self._bucket,
            pool=pool,
            now=utc_now,
        )
        with ThreadPoolExecutor(messages) as waiting:
            runs = waiting.map(lambda name: archive.archive(name, receives=1), names)
            assert not any(run is None or run.failures for run in runs)
        pool.shutdown()

    def _url(self, megabytes: int) -> str:
        self._number += 1
        return f"{self.images}/{megabytes}/{self._number}.png"

    def _create_tls_context(self) -> Any:
        self._client_tls = httpx.create_ssl_context(trust_env=False)
        self._client_tls.load_verify_locations(self.bundle)
        return self._client_tls


def _connect(url: str, tls: ssl.SSLContext) -> ssl.SSLSocket:
    """Opens a TLS connection to a server of this benchmark."""
    plain = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(plain, server_hostname="localhost")


def _read_head(connection: ssl.SSLSocket) -> tuple[bytes, bytes]:
    """Reads a response's head; returns it and the first bytes of the body."""
    read = b""
    while b"\r\n\r\n" not in read:
        read += connection.recv(PIECE_BYTES)
    head, _, body = read.partition(b"\r\n\r\n")
    return head, body


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Returns the elapsed seconds, and the seconds of this process's CPU time."""
    started_at, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started_at, time.process_time() - cpu


@contextmanager
def servers(latency: int) -> Iterator[Transfers]:
    """Starts the servers and yields the transfers between them."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.benchmarks.archiving_servers", folder, str(latency)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            ways = Transfers(folder, *process.stdout.readline().split())
            try:
                yield ways
            finally:
                ways.close()
                process.terminate()


def speeds() -> Iterator[Figure]:
    """Measures single images, one at a time."""
    for latency in LATENCIES:
        with servers(latency) as ways:
            for size in SIZES:
                taken: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": [], "plain_over_new_connection": []}
                for _ in range(RUNS):
                    for way, times in taken.items():
                        times.append(timed(partial(getattr(ways, way), size)))
                wall = {way: [1000 * seconds for seconds, _ in times] for way, times in taken.items()}
                cpu = {way: [1000 * seconds for _, seconds in times] for way, times in taken.items()}
                name = f"an image of {size} MB, {latency} ms away"
                goal = Goal(GOAL_SHARE, at_least=True)
                yield speed(name, wall["ours"], "plain, over a kept connection", wall["plain"], goal)
                yield speed(
                    f"{name}, the same", wall["ours"], "plain, over a new connection", wall["plain_over_new_connection"]
                )
                yield speed(f"{name}, CPU time", cpu["ours"], "plain", cpu["plain"], goal)


def speed(
    name: str, ours: Sequence[float], peer: str, peer_times: Sequence[float], goal: Goal | None = None, unit: str = "ms"
) -> Figure:
    """Returns a figure of times, with the speed as a share of the peer's."""
    own_samples, peer_samples = Samples(ours), Samples(peer_times)
    shares = peer_samples.ratios_to(own_samples)
    figure = Figure(
        name,
        own_samples.median,
        unit,
        peer,
        peer_samples.median,
        shares.median,
        goal,
        own_samples.spread,
        peer_samples.spread,
    )
    return replace(figure, ratio_spread=shares.spread)


def commands() -> Iterator[Figure]:
    """Compares with the commands of a script, if `aws` is installed."""
    if not (shutil.which("aws") and shutil.which("curl")):
        return
    with servers(0) as ways:
        ours, peer_times = [], []
        for _ in range(3):
            ours.append(1000 * timed(lambda: ways.ours(1))[0])
            peer_times.append(1000 * timed(lambda: ways.by_commands(1))[0])
    yield speed("an image of 1 MB, 0 ms away", ours, "curl piped into aws s3 cp", peer_times)


def batches() -> Iterator[Figure]:
    """Measures the duration of a batch of 1 MB images, with 50 ms latency."""
    ways: dict[str, Callable[[Transfers], None]] = {
        "ours": lambda ways: ways.batch(1, 32, 5),
        "TLS and SHA-256 only, at once, in one process": lambda ways: ways.bare_batch(1),
        "Catchlight, one after the other": lambda ways: ways.batch(1, 1, 1),
        "plain, one after the other, each over a new connection": lambda ways: ways.one_by_one(1),
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    with servers(50) as transfers:
        for _ in range(BATCHES):
            for way, times in taken.items():
                times.append(timed(partial(ways[way], transfers))[0])
    goal: Goal | None = Goal(GOAL_BATCH_SHARE, at_least=True)
    ours = taken.pop("ours")
    for peer, peer_times in taken.items():
        yield speed("5 tasks of two images, 50 ms away", ours, peer, peer_times, goal, "s")
        goal = None


def in_a_process(measurement: str) -> Any:
    """Returns the output of `python -m tests.benchmarks.archiving MEASUREMENT`, a process that runs nothing else."""
    command = [sys.executable, "-m", "tests.benchmarks.archiving", measurement]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)


def _memory() -> tuple[float, float]:
    with servers(0) as ways:
        ways.ours(1)
        reset_peak()
        peaks = [peak_megabytes()]
        ways.ours(25)
        peaks.append(peak_megabytes())
        ways.batch(25, 32, 5)
        peaks.append(peak_megabytes())
    return peaks[1] - peaks[0], peaks[2] - peaks[0]


def measure() -> list[Figure]:
    """Measures all figures."""
    one, ten = in_a_process("memory")
    return [
        *map(figure_of, in_a_process("time")),
        Figure("memory above idle, an image of 25 MB", one, "MB", goal=Goal(GOAL_MEGABYTES, of="value")),
        Figure("memory above idle, ten of them at once", ten, "MB", goal=Goal(GOAL_MEGABYTES, of="value")),
    ]


if __name__ == "__main__":
    measured: Any = _memory() if sys.argv[1] == "memory" else [*map(asdict, [*speeds(), *commands(), *batches()])]
    print(json.dumps(measured))  # noqa: T201
