"""AWS clients: they share what is slow to create, verify certificates, and reject truncated answers."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, SSLError

from catchlight.aws.clients import CLIENT_CONFIG, AwsClients
from tests.benchmarks.aws_stand_in import Refusal, StandIn, stand_in

ANSWERS = {
    "UpdateItem": lambda _: {},
    "GetSecretValue": lambda parameters: {"SecretString": parameters["SecretId"]},
    "DescribeStateMachine": lambda _: {},
}


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with stand_in(tmp_path, ANSWERS) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://localhost:{aws.port}")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(aws.bundle))
        yield aws


@pytest.fixture
def parsed_bundles(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Returns a list of the CA bundles that are parsed, with one entry for each time."""
    bundles = []
    load = ssl.SSLContext.load_verify_locations

    def count(context: ssl.SSLContext, *args: Any) -> None:
        bundles.append(args[0])
        load(context, *args)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", count)
    return bundles


def write(client: Any) -> None:
    client.update_item(TableName="tasks", Key={"task": {"S": "x"}})


def test_all_clients_parse_the_ca_bundle_once(aws: StandIn, parsed_bundles: list[Any]) -> None:
    clients = AwsClients()
    dynamodb, secrets_manager = clients.dynamodb(), clients.secrets_manager()

    for _ in range(3):
        write(dynamodb)
        secrets_manager.get_secret_value(SecretId="x")
        # A service closes idle connections.
        dynamodb._endpoint.http_session._manager.clear()  # type: ignore[attr-defined]

    assert aws.connections == 4
    assert parsed_bundles == [str(aws.bundle)]


def test_nothing_is_sent_to_a_server_with_an_unknown_certificate(aws: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")

    with pytest.raises(SSLError, match="certificate verify failed"):
        write(AwsClients().dynamodb(CLIENT_CONFIG.merge(Config(retries={"total_max_attempts": 1}))))

    assert not aws.calls


def test_a_certificate_for_another_name_is_refused(aws: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{aws.port}")

    with pytest.raises(SSLError, match="certificate verify failed"):
        write(AwsClients().dynamodb(CLIENT_CONFIG.merge(Config(retries={"total_max_attempts": 1}))))

    assert not aws.calls


def test_calls_have_a_user_agent_and_limited_attempts_and_timeouts(aws: StandIn) -> None:
    client: Any = AwsClients().dynamodb()
    requests: list[Any] = []
    client.meta.events.register("before-send.dynamodb", lambda request, **_: requests.append(request))

    write(client)

    (sent,) = requests
    assert sent.headers["User-Agent"].startswith(b"catchlight")  # boto3 may append other names
    assert client.meta.config.retries == {"total_max_attempts": 3, "mode": "standard"}
    assert (client.meta.config.connect_timeout, client.meta.config.read_timeout) == (1, 2)


@pytest.mark.parametrize(("conflicts", "is_written"), [(1, True), (3, True), (4, False)])
def test_a_write_waits_for_the_end_of_a_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conflicts: int, is_written: bool
) -> None:
    conflict = {"__type": "com.amazonaws.dynamodb.v20120810#TransactionConflictException", "message": "ongoing"}
    answers: Iterator[Any] = iter([Refusal(conflict)] * conflicts + [{}])

    with stand_in(tmp_path, {"UpdateItem": lambda _: next(answers)}) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://localhost:{aws.port}")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(aws.bundle))
        with nullcontext() if is_written else pytest.raises(ClientError, match="TransactionConflict"):
            write(AwsClients().dynamodb())


@pytest.mark.parametrize(
    ("make", "service"),
    [
        (AwsClients.dynamodb, "dynamodb"),
        (AwsClients.events, "events"),
        (AwsClients.s3, "s3"),
        (AwsClients.secrets_manager, "secretsmanager"),
        (AwsClients.sqs, "sqs"),
        (AwsClients.step_functions, "stepfunctions"),
    ],
)
def test_each_service_has_its_client(make: Any, service: str) -> None:
    assert make(AwsClients()).meta.service_model.service_name == service


# ------------------------------------------------------------------------------------------------ truncated answers

ONCE = CLIENT_CONFIG.merge(Config(retries={"total_max_attempts": 1}))
Call = Callable[[AwsClients], Any]
CALLS: dict[str, Call] = {
    "dynamodb": lambda aws: aws.dynamodb(ONCE).get_item(TableName="tasks", Key={"task": {"S": "x"}}),
    "events": lambda aws: aws.events(ONCE).put_events(Entries=[]),
    "secrets manager": lambda aws: aws.secrets_manager(ONCE).get_secret_value(SecretId="x"),
    "sqs": lambda aws: aws.sqs(ONCE).send_message_batch(QueueUrl="https://sqs/1/x", Entries=[]),
    "step functions": lambda aws: aws.step_functions(ONCE).start_execution(stateMachineArn="x"),
}
COMPLETE = b'{"Item": {"task": {"S": "x"}}}'


@pytest.fixture
def response_body(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Starts a server, and yields a list whose only element is the body of its answers to POST requests.

    The Content-Length of the answers is always that of COMPLETE.
    """
    body = [COMPLETE]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(COMPLETE)))
            self.end_headers()
            self.wfile.write(body[0])

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        yield body
        server.shutdown()


@pytest.mark.parametrize("service", CALLS)
@pytest.mark.parametrize("half", [COMPLETE[:15], b""], ids=["in the middle", "before the body"])
def test_a_truncated_answer_is_an_error(response_body: list[bytes], service: str, half: bytes) -> None:
    response_body[:] = [half]

    with pytest.raises(ConnectionClosedError):
        CALLS[service](AwsClients())


def test_a_complete_answer_is_returned(response_body: list[bytes]) -> None:
    assert CALLS["dynamodb"](AwsClients())["Item"] == {"task": {"S": "x"}}


def test_a_head_request_needs_no_body(response_body: list[bytes]) -> None:
    assert AwsClients().s3(ONCE).head_object(Bucket="images", Key="x")["ContentLength"] == 1000
