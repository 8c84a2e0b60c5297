"""Creates clients of AWS services, with settings that make cold starts and calls faster.

The clients are created by botocore directly. boto3 would add 17 ms to a cold start and no feature that is needed here;
its session would also read its own data in every function.
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
    from mypy_boto3_lambda.client import LambdaClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_secretsmanager.client import SecretsManagerClient
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_stepfunctions.client import SFNClient

# Settings of every client, in addition to its timeouts. botocore's defaults take a tenth of a callback's CPU time.
BASE_CONFIG = Config(
    # By default botocore builds the user agent twice per call, always with the same result.
    user_agent="catchlight",
    # mypy checks the types of arguments, and the service checks their values.
    parameter_validation=False,
)
# A callback must be answered within 10 s: three attempts of 1 s to connect and 2 s to read leave time for a cold start.
CLIENT_CONFIG = Config(
    connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 3, "mode": "standard"}, tcp_keepalive=True
)
# A submission's transaction takes about 20 ms. Other writes to the same task during this time, usually by its callback,
# fail with an error that botocore does not retry.
CONFLICT = "TransactionConflictException"
MAX_CONFLICTS = 3
CONFLICT_PAUSE_SECONDS = 0.05


class AwsClients:
    """Creates clients that share one session and one TLS context, because both are slow to create."""

    def dynamodb(self, config: Config = CLIENT_CONFIG) -> "DynamoDBClient":
        """Creates a client of DynamoDB that also retries transaction conflicts."""
        client = self._client("dynamodb", config)
        client.meta.events.register("needs-retry.dynamodb", _pause_after_conflict)
        dynamodb: DynamoDBClient = client
        return dynamodb

    def dynamodb_streams(self, config: Config = CLIENT_CONFIG) -> Any:
        """Creates a client of DynamoDB's streams."""
        return self._client("dynamodbstreams", config)

    def events(self, config: Config = CLIENT_CONFIG) -> "EventBridgeClient":
        """Creates a client of EventBridge."""
        client: EventBridgeClient = self._client("events", config)
        return client

    def functions(self, config: Config = CLIENT_CONFIG) -> "LambdaClient":
        """Creates a client of Lambda."""
        client: LambdaClient = self._client("lambda", config)
        return client

    def s3(self, config: Config = CLIENT_CONFIG) -> "S3Client":
        """Creates a client of S3."""
        client: S3Client = self._client("s3", config)
        return client

    def secrets_manager(self, config: Config = CLIENT_CONFIG) -> "SecretsManagerClient":
        """Creates a client of Secrets Manager."""
        client: SecretsManagerClient = self._client("secretsmanager", config)
        return client

    def sqs(self, config: Config = CLIENT_CONFIG) -> "SQSClient":
        """Creates a client of SQS."""
        client: SQSClient = self._client("sqs", config)
        return client

    def step_functions(self, config: Config = CLIENT_CONFIG) -> "SFNClient":
        """Creates a client of Step Functions."""
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
        # botocore has no parameter for a TLS context; a test fails if a new version stores it elsewhere. By default,
        # every connection parses the CA bundle. In 40 pairs of cold starts of ReceiveCallback, which opens two
        # connections, that took 5 % more CPU time (median, 2026-11-27). The archiver opens one to S3 for each image.
        client._endpoint.http_session._manager.connection_pool_kw["ssl_context"] = self._tls_context
        client.meta.events.register("after-call", _reject_truncated_response)
        return client


def _pause_after_conflict(response: tuple[Any, Any] | None, attempts: int, **_: Any) -> float | None:
    """Returns the seconds to wait before a write that conflicts with a transaction is retried; None in other cases."""
    if response is None or response[1].get("Error", {}).get("Code") != CONFLICT or attempts > MAX_CONFLICTS:
        return None
    return CONFLICT_PAUSE_SECONDS


def _reject_truncated_response(http_response: "AWSResponse", model: "OperationModel", **_: Any) -> None:
    """Raises an error if a response is shorter than its Content-Length.

    botocore accepts such a response and parses truncated JSON as an empty document: an item would seem not to exist, a
    failed message would seem to be sent. botocore verifies DynamoDB's checksum, but accepts a mismatch on the last
    attempt.
    """
    if model.http["method"] == "HEAD" or model.has_streaming_output:
        return
    length = http_response.headers.get("content-length")
    if length is not None and len(http_response.content) < int(length):
        raise ConnectionClosedError(endpoint_url=http_response.url)


class TlsContext(ssl.SSLContext):
    """A TLS context that loads each CA bundle only once.

    urllib3 makes the context load its bundle again for every new connection, which takes 15 ms; a handshake takes 2 ms.
    """

    def __new__(cls) -> "TlsContext":
        """Creates a context for clients, which verifies certificates and host names."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self) -> None:
        self.minimum_version = ssl.TLSVersion.TLSv1_2
        self._loading = Lock()
        self._loaded: set[tuple[Any, Any, Any]] = set()

    def load_verify_locations(self, cafile: Any = None, capath: Any = None, cadata: Any = None) -> None:
        """Loads CA certificates as `SSLContext` does, unless the same arguments were loaded before."""
        with self._loading:
            if (cafile, capath, cadata) not in self._loaded:
                super().load_verify_locations(cafile, capath, cadata)
                self._loaded.add((cafile, capath, cadata))
