"""Provides AWS in memory, with the table that the template defines."""

import functools
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore.loaders
import botocore.session
import moto.core.models
import pytest
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.hooks import EventAliaser
from botocore.loaders import JSONFileLoader
from moto import mock_aws
from moto.backend_index import backend_url_patterns

from catchlight.aws import clients as aws_clients
from catchlight.aws.clients import CLIENT_CONFIG, AwsClients
from catchlight.tasks.confirmations import Confirmations
from catchlight.tasks.images import TaskImages
from catchlight.tasks.reports import Reports
from catchlight.tasks.restarts import Restarts
from catchlight.tasks.table import TasksTable
from local.moto import fast_paths
from local.moto.patches.dynamodb import atomic_dynamodb_calls
from local.template.expand import Template
from tests.project_template import project_template

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

fast_paths.install()
# For each request moto tries the URL patterns of 183 services one after the other: those of the stack come first.
_SERVICES = {"dynamodb", "dynamodbstreams", "events", "s3", "secretsmanager", "sqs", "stepfunctions"}
backend_url_patterns.sort(key=lambda entry: entry[0] not in _SERVICES)

REPOSITORY = Path(__file__).parents[2]
TABLE_NAME = "tasks"

_serialize = TypeSerializer().serialize
_deserialize = TypeDeserializer().deserialize


@pytest.fixture(scope="session")
def template() -> Template:
    """The template as CloudFormation receives it."""
    return project_template()


# A session registers 130 event handlers and reads the descriptions of all services: more work than most tests.
_create_loader = functools.cache(botocore.loaders.create_loader)
_load_file = functools.cache(functools.partial(JSONFileLoader.load_file, JSONFileLoader()))
# Local stacks and commands have their own sessions, whose loaders would read the same files again.
JSONFileLoader.load_file = lambda _, file_path: _load_file(file_path)  # type: ignore[method-assign, assignment]
_create_aliaser = EventAliaser.__init__
_aliases: dict[str, str] = {}


def _create_aliaser_with_shared_names(self: EventAliaser, *args: Any, **kwargs: Any) -> None:
    # Each session translates the names of the same events.
    _create_aliaser(self, *args, **kwargs)
    self._alias_name_cache = _aliases  # type: ignore[attr-defined]  # not in the stubs


EventAliaser.__init__ = _create_aliaser_with_shared_names  # type: ignore[method-assign]


class _ReusedClients(botocore.session.Session):
    """A session whose clients are reused by later accounts, because creating a client takes 20 ms.

    Within an account no client is returned twice. A client with handlers that a test has registered is not reused.
    """

    def __init__(self) -> None:
        super().__init__()
        self._free: defaultdict[str, list[Any]] = defaultdict(list)
        self._in_use: list[tuple[str, Any]] = []
        self._changed: set[int] = set()

    def create_client(self, *args: Any, **kwargs: Any) -> Any:
        options = {name: getattr(value, "_user_provided_options", value) for name, value in kwargs.items()}
        settings = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        key = repr((args, options, settings))
        client = self._free[key].pop() if self._free[key] else self._created(*args, **kwargs)
        self._in_use.append((key, client))
        return client

    def _created(self, *args: Any, **kwargs: Any) -> Any:
        client: Any = super().create_client(*args, **kwargs)
        events = client.meta.events
        registered_by_catchlight: set[tuple[str, Any]] = set()

        def register_once(register: Callable[..., None], name: str, handler: Any, *more: Any, **options: Any) -> None:
            if getattr(handler, "__module__", None) != aws_clients.__name__:
                self._changed.add(id(client))
            elif (name, handler) in registered_by_catchlight:
                return
            else:
                registered_by_catchlight.add((name, handler))
            register(name, handler, *more, **options)

        for method in ("register", "register_first", "register_last"):
            setattr(events, method, functools.partial(register_once, getattr(events, method)))
        return client

    def release(self) -> None:
        """Ends an account: its clients can be reused."""
        for key, client in self._in_use:
            if id(client) not in self._changed:
                self._free[key].append(client)
        self._in_use.clear()
        self._changed.clear()


@functools.cache
def _sessions() -> tuple[_ReusedClients, boto3.Session, _ReusedClients]:
    """Returns the sessions that all accounts share: the tests' as botocore's and as boto3's, and the functions'."""
    of_tests = _ReusedClients()
    return of_tests, boto3.Session(botocore_session=of_tests), _ReusedClients()


@contextmanager
def an_account() -> Iterator[None]:
    """Provides an empty account in which conditional writes are atomic, as in AWS."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(botocore.session, "create_loader", _create_loader)
        of_tests, of_boto3, of_functions = _sessions()
        patches.setattr(boto3, "DEFAULT_SESSION", of_boto3)
        patches.setattr(AwsClients, "_session", of_functions)
        # moto registers 1,300 URL patterns for calls by `requests`, which no code under test uses.
        patches.setattr(moto.core.models, "RESPONSES_METHODS", ())
        try:
            with mock_aws(config={"core": {"reset_boto3_session": False}}), atomic_dynamodb_calls():
                yield
        finally:
            of_tests.release()
            of_functions.release()


@pytest.fixture
def aws() -> Iterator[None]:
    with an_account():
        yield


class Store:
    """The tasks table, for the code under test and for direct access, as users have it."""

    def __init__(self, client: "DynamoDBClient", *, retention: timedelta | None = None) -> None:
        self.client = client
        self.table = TasksTable(TABLE_NAME, client, retention=retention)
        self.reports = Reports(self.table)
        self.confirmations = Confirmations(self.table)
        self.images = TaskImages(self.table)
        self.restarts = Restarts(self.table)

    def item(self, task: str) -> dict[str, Any] | None:
        """Returns a task's item as plain Python values."""
        item = self.client.get_item(TableName=TABLE_NAME, Key={"task": {"S": task}}).get("Item")
        return None if item is None else plain(item)

    def items(self) -> list[dict[str, Any]]:
        """Returns all items."""
        return [plain(item) for item in self.client.scan(TableName=TABLE_NAME)["Items"]]

    def put(self, task: str, **attributes: Any) -> None:
        """Writes an item directly, as a user does."""
        item = {name: _serialize(value) for name, value in {"task": task, **attributes}.items()}
        self.client.put_item(TableName=TABLE_NAME, Item=item)

    def register(self, *tasks: str) -> None:
        """Registers tasks as the documentation describes."""
        for task in tasks:
            provider, _, task_id = task.partition("#")
            self.put(task, provider=provider, taskId=task_id, status="PENDING", rank=0)


def plain(item: dict[str, Any]) -> dict[str, Any]:
    """Converts an item from DynamoDB's JSON to plain Python values."""
    return {name: _deserialize(value) for name, value in item.items()}


def a_store(template: Template) -> Store:
    """Creates the table."""
    described = template.resources["TasksTable"]["Properties"]
    client = boto3.client("dynamodb", config=CLIENT_CONFIG)
    client.create_table(
        TableName=TABLE_NAME,
        AttributeDefinitions=described["AttributeDefinitions"],
        KeySchema=described["KeySchema"],
        GlobalSecondaryIndexes=described["GlobalSecondaryIndexes"],
        BillingMode=described["BillingMode"],
    )
    return Store(client)


@pytest.fixture
def store(aws: None, template: Template) -> Store:
    return a_store(template)
