"""Runs hundreds of races, in each of which several writers write one item, in moto or DynamoDB Local: `make races`."""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from local.environment import ignore_user_settings

if __name__ == "__main__":  # before boto3 or moto is imported
    ignore_user_settings()

import boto3
from rich.console import Console
from rich.table import Table

from local.template.expand import Template, load_template
from tests.dynamodb_local import dynamodb_local
from tests.integration.conftest import REPOSITORY, TABLE_NAME, a_store, an_account
from tests.searches.races.races import Result, run

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

KEYS, WRITERS = 400, 16


def main() -> int:
    """Runs the races and prints the results. Returns exit status 1 if a race failed."""
    parser = argparse.ArgumentParser(prog="make races", description=__doc__)
    parser.add_argument("--engine", choices=["moto", "dynamodb-local"], default="moto")
    parser.add_argument("--keys", type=int, default=KEYS, help=f"number of races of each kind (default: {KEYS})")
    options = parser.parse_args()
    template = load_template(REPOSITORY / "template.yaml", {})
    console = Console()
    table = Table(title=f"{WRITERS} writers at each of {options.keys} items, {options.engine}")
    for heading in ("race", "items", "one winner", "winner's values", "seconds"):
        table.add_column(heading, justify="left" if heading == "race" else "right")
    all_passed = True
    with _engine(options.engine, template) as client:
        begun = time.monotonic()
        for result in run(TABLE_NAME, client, keys=options.keys, writers=WRITERS):
            seconds, begun = time.monotonic() - begun, time.monotonic()
            all_passed &= result.has_passed
            table.add_row(*_cells(result), f"{seconds:.1f}")
    console.print(table)
    return 0 if all_passed else 1


def _cells(result: Result) -> tuple[str, ...]:
    return result.name, str(result.keys), str(result.with_one_winner), str(result.with_winners_values)


@contextmanager
def _engine(name: str, template: Template) -> Iterator["DynamoDBClient"]:
    if name == "moto":
        os.environ.update(AWS_DEFAULT_REGION="us-east-1", AWS_ACCESS_KEY_ID="local", AWS_SECRET_ACCESS_KEY="local")
        with an_account():
            yield a_store(template).client
        return
    with dynamodb_local() as endpoint:
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


if __name__ == "__main__":
    sys.exit(main())
