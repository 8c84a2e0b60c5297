"""How quick the local stack is here: until it is ready, for a warm callback, and with 64 deliveries at once.

    .venv/bin/python tests/benchmarks/local_stack.py

Absolute times of one machine, for orientation: compare with the empty request to the same API in the same run.
"""

import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlsplit

import boto3
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[2]
CALLBACKS = 200
AT_ONCE = 64


def post(url: str, body: bytes) -> tuple[int, float]:
    """Status, and milliseconds from connecting to the last byte of the answer."""
    parts = urlsplit(url)
    assert parts.hostname
    begun = time.perf_counter()
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    connection.request("POST", parts.path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status, (time.perf_counter() - begun) * 1000


def failure(task_id: str) -> bytes:
    """A callback that is written and leads to nothing else."""
    return json.dumps({"code": 501, "msg": "failed", "data": {"taskId": task_id}}).encode()


def main() -> None:
    """Starts a stack of its own, measures, prints a table."""
    table = Table(title="The local stack on this machine", title_justify="left")
    for column in ("figure", "median", "95 %", "max"):
        table.add_column(column, justify="left" if column == "figure" else "right")

    def add(name: str, times: list[float], unit: str = "ms") -> None:
        table.add_row(name, *(f"{t:.1f} {unit}" for t in (median(times), quantiles(times, n=20)[-1], max(times))))

    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        command = [sys.executable, "-m", "local", "up", "--port", "0", "--time-scale", "0.02", "--state-dir", folder]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
        try:
            while not (Path(folder) / "stack.json").exists():
                time.sleep(0.01)
            ready = time.perf_counter() - begun
            info = json.loads((Path(folder) / "stack.json").read_text())
            url = info["callback_urls"]["flux-kontext"]
            for _ in range(20):  # warm
                post(url, failure("warm-0"))
            nowhere = info["api_url"] + "/nowhere"
            add("no route (the HTTP front alone)", [post(nowhere, b"{}")[1] for _ in range(CALLBACKS)])
            # First what leaves the stack at rest: every new task starts an execution that polls meanwhile.
            add("warm callback, repeated", [post(url, failure("warm-0"))[1] for _ in range(CALLBACKS)])
            add("warm callback, new task", [post(url, failure(f"new-{n}"))[1] for n in range(CALLBACKS)])
            with ThreadPoolExecutor(AT_ONCE) as pool:
                answers = list(pool.map(lambda _: post(url, failure("at-once")), range(AT_ONCE)))
            add(f"one callback {AT_ONCE} times at once", [ms for _, ms in answers])
            tasks = boto3.resource(
                "dynamodb",
                endpoint_url=info["aws_endpoint_url"],
                region_name=info["region"],
                aws_access_key_id="local",
                aws_secret_access_key="local",
            ).Table(info["table"])
            item: dict[str, Any] = tasks.get_item(Key={"task": "flux-kontext#at-once"})["Item"]
        finally:
            process.terminate()
            process.wait()
    console = Console()
    console.print(f"Ready after {ready:.1f} s.")
    console.print(table)
    statuses = Counter(status for status, _ in answers)
    console.print(
        f"{AT_ONCE} at once: answers {dict(statuses)}, one item, {item['status']}, {item['deliveries']} deliveries"
    )


if __name__ == "__main__":
    main()
