"""Clients of AWS services that are quickly made and quickly used: a cold start waits for them.

Made by botocore itself. boto3 on top of it costs 17 ms of a cold start and adds nothing that is needed here; its own
session would read its own data again for every function.
"""

import ssl
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError

if TYPE_CHECKING:
    from botocore.awsrequest import AWSResponse
    from botocore.model import OperationModel
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_events.client import EventBridgeClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_secretsmanager.client import SecretsManagerClient
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_stepfunctions.client import SFNClient

# What every client has, whatever its timeouts are. Both would cost a tenth of a callback's CPU time.
BASE_CONFIG = Config(
    # Else it is put together anew, twice for every call, from nothing that changes.
    user_agent="catchlight",
    # The types of arguments are mypy's business, their values the service's.
    parameter_validation=False,
)
# A callback has 10 s in all: three tries of 1 s to connect and 2 s to answer leave room for a cold start.
CLIENT_CONFIG = Config(
    connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 3, "mode": "standard"}, tcp_keepalive=True
)
# A submission's transaction takes some 20 ms. What writes to the same task meanwhile, its callback first of all, is
# refused with an error that botocore does not take for a passing one.
CONFLICT = "TransactionConflictException"
MAX_CONFLICTS = 3
CONFLICT_PAUSE_SECONDS = 0.05


class AwsClients:
    """Makes clients that share what is slow to make: one session, one TLS context."""

    def dynamodb(self, config: Config = CLIENT_CONFIG) -> "DynamoDBClient":
        """A client of DynamoDB."""
        client = self._client("dynamodb", config)
        client.meta.events.register("needs-retry.dynamodb", _pause_of_a_conflict)
        dynamodb: DynamoDBClient = client
        return dynamodb

    def events(self, config: Config = CLIENT_CONFIG) -> "EventBridgeClient":
        """A client of EventBridge."""
        client: EventBridgeClient = self._client("events", config)
        return client

    def s3(self, config: Config = CLIENT_CONFIG) -> "S3Client":
        """A client of S3."""
        client: S3Client = self._client("s3", config)
        return client

    def secrets_manager(self, config: Config = CLIENT_CONFIG) -> "SecretsManagerClient":
        """A client of Secrets Manager."""
        client: SecretsManagerClient = self._client("secretsmanager", config)
        return client

    def sqs(self, config: Config = CLIENT_CONFIG) -> "SQSClient":
        """A client of SQS."""
        client: SQSClient = self._client("sqs", config)
        return client

    def step_functions(self, config: Config = CLIENT_CONFIG) -> "SFNClient":
        """A client of Step Functions."""
        client: SFNClient = self._client("stepfunctions", config)
        return client

    @cached_property
    def _session(self) -> botocore.session.Session:
        return botocore.session.get_session()

    @cached_property
    def _tls_context(self) -> ssl.SSLContext:
        return TlsContext()

    def _client(self, service: str, config: Config) -> Any:
        client: Any = self._session.create_client(service, config=config.merge(BASE_CONFIG))
        # botocore has no parameter for it; a test notices should it look elsewhere one day.
        client._endpoint.http_session._manager.connection_pool_kw["ssl_context"] = self._tls_context
        client.meta.events.register("after-call", _refuse_half_an_answer)
        return client


def _pause_of_a_conflict(response: tuple[Any, Any] | None, attempts: int, **_: Any) -> float | None:
    """Seconds after which a write is tried again that came into the middle of a transaction; None for all else."""
    if response is None or response[1].get("Error", {}).get("Code") != CONFLICT or attempts > MAX_CONFLICTS:
        return None
    return CONFLICT_PAUSE_SECONDS


def _refuse_half_an_answer(http_response: "AWSResponse", model: "OperationModel", **_: Any) -> None:
    """Fails a call whose answer ends before its length.

    botocore takes it for whole, and makes an empty one of half a JSON document: there is no such item, no message has
    failed. DynamoDB's checksum it compares, but the answer to its last try it takes whatever it says.
    """
    if model.http["method"] == "HEAD" or model.has_streaming_output:
        return
    length = http_response.headers.get("content-length")
    if length is not None and len(http_response.content) < int(length):
        raise ConnectionClosedError(endpoint_url=http_response.url)


class TlsContext(ssl.SSLContext):
    """Takes a CA bundle once.

    urllib3 has the context parse its bundle again for every new connection: 15 ms, while a handshake costs 2.
    """

    def __new__(cls) -> "TlsContext":
        """A client's context: certificates and names are verified."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self) -> None:
        self.minimum_version = ssl.TLSVersion.TLSv1_2
        self._loading = Lock()
        self._loaded: set[tuple[Any, Any, Any]] = set()

    def load_verify_locations(self, cafile: Any = None, capath: Any = None, cadata: Any = None) -> None:
        """As its parent's, and nothing if the same was loaded before."""
        with self._loading:
            if (cafile, capath, cadata) not in self._loaded:
                super().load_verify_locations(cafile, capath, cadata)
                self._loaded.add((cafile, capath, cadata))
