"""Provides an archiver and a poller that use the same fake providers, and the table's stream."""

import json
from collections.abc import Iterator

import boto3
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.polling.provider_client import ProviderClient
from functions.archive_images import app as archive_images
from functions.dispatch_changes.app import Change, FollowUp, read_changes
from local.events.filters import EventFilter
from local.template.expand import Template
from tests.fake_http import FakeHttp
from tests.image_server import ImageServer, serving
from tests.integration.archiver import Archiver, archiving
from tests.integration.conftest import TABLE_NAME, Store
from tests.integration.functions import PROVIDER_KEYS
from tests.integration.providers import (
    Providers,
    polling,
)


class Stream:
    """The table's stream with the event filter of DispatchChanges."""

    def __init__(self, store: Store, template: Template) -> None:
        store.client.update_table(
            TableName=TABLE_NAME, StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
        )
        source = template.resources["DispatchChangesFunctionTasksTableStream"]["Properties"]
        self._filter = EventFilter([event_filter["Pattern"] for event_filter in source["FilterCriteria"]["Filters"]])
        self._client = boto3.client("dynamodbstreams")
        (stream,) = self._client.list_streams(TableName=TABLE_NAME)["Streams"]
        described = self._client.describe_stream(StreamArn=stream["StreamArn"])["StreamDescription"]
        self._iterator = self._client.get_shard_iterator(
            StreamArn=stream["StreamArn"],
            ShardId=described["Shards"][0]["ShardId"],
            ShardIteratorType="LATEST",
        )["ShardIterator"]

    def new_follow_ups(self) -> list[tuple[str, FollowUp]]:
        """Returns the follow-ups that DispatchChanges derives from the changes since the last call."""
        response = self._client.get_records(ShardIterator=self._iterator)
        self._iterator = response["NextShardIterator"]
        records = json.loads(
            json.dumps(response["Records"], default=str)
        )  # the format that Lambda passes, except for timestamps
        matching = [record for record in records if self._filter.matches(record)]
        return [(change.task, change.follow_up) for change in read_changes(matching) if isinstance(change, Change)]


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with serving() as running_server:
        yield running_server


@pytest.fixture
def providers(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Providers]:
    """The providers that both archiver and poller use."""
    with polling(monkeypatch) as providers:
        http = FakeHttp(providers)
        monkeypatch.setattr(
            archive_images,
            "ProviderClient",
            lambda base_urls, **options: ProviderClient(base_urls, http=http, **options),
        )
        yield providers


@pytest.fixture
def archiver(
    providers: Providers, store: Store, server: ImageServer, context: LambdaContext, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Archiver]:
    with archiving(store, server, context, monkeypatch, PROVIDER_KEYS) as running_archiver:
        yield running_archiver


@pytest.fixture
def stream(store: Store, template: Template) -> Stream:
    return Stream(store, template)
