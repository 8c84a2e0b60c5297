"""Simulates AWS, the providers and the image hosts that the functions call, as one HTTPS server on loopback.

Answers are responses in the services' formats: AWS's JSON protocols with their error types and checksums, S3's XML.
Requests are validated as in AWS: a request that AWS would reject is recorded as a problem.
"""

import json
import re
import ssl
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from zlib import crc32

import trustme

from local.loopback import LoopbackHandler, LoopbackServer
from scripts.smoke.s3_requests import S3RequestError, decode_body, stored_checksum

REGION = "eu-central-1"
BUCKET = "catchlight-imagesbucket-1abcdefghijkl"
# By host name in AWS: the service that requests are signed for, and the prefix of the operations in X-Amz-Target.
HOSTS = {
    f"dynamodb.{REGION}.amazonaws.com": ("dynamodb", "DynamoDB_20120810"),
    f"events.{REGION}.amazonaws.com": ("events", "AWSEvents"),
    f"secretsmanager.{REGION}.amazonaws.com": ("secretsmanager", "secretsmanager"),
    f"sqs.{REGION}.amazonaws.com": ("sqs", "AmazonSQS"),
    f"states.{REGION}.amazonaws.com": ("states", "AWSStepFunctions"),
    f"streams.dynamodb.{REGION}.amazonaws.com": ("dynamodb", "DynamoDBStreams_20120810"),
    f"lambda.{REGION}.amazonaws.com": ("lambda", ""),
    f"{BUCKET}.s3.{REGION}.amazonaws.com": ("s3", ""),
}
S3_OPERATIONS = {"PUT": "PutObject", "HEAD": "HeadObject", "GET": "GetObject"}
_MAX_BODY_BYTES = 64 * 1024 * 1024
_CREDENTIAL = re.compile(r"Credential=([^/]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")


@dataclass(frozen=True)
class Call:
    """A request to AWS or to another host. For other hosts, `service` is the host, `operation` the method and URL."""

    function: str  # name of the function whose credentials signed the request
    service: str
    operation: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class AwsResponse:
    """A response of the simulated account."""

    status: int = 200
    body: Any = field(default_factory=dict)  # sent as JSON, unless bytes
    headers: dict[str, str] = field(default_factory=dict)


Answering = Callable[[Call], AwsResponse]


@dataclass
class Account:
    """The simulated account: its answers, and the calls and problems recorded so far.

    `scripted` answers are used first, each once and in order; then the answers of `usual`. Both are keyed by operation.
    """

    port: int
    authority: Path  # file with the CA certificate that clients must trust
    usual: dict[str, Answering] = field(default_factory=dict)
    scripted: dict[str, deque[AwsResponse]] = field(default_factory=lambda: defaultdict(deque))
    calls: list[Call] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, call: Call) -> AwsResponse:
        """Records a call and returns the next answer to its operation."""
        with self._lock:
            self.calls.append(call)
            if waiting := self.scripted.get(call.operation):
                return waiting.popleft()
        if call.operation not in self.usual:
            return self.refuse(f"no answer to {call.operation} is defined: add one to scripts/smoke/*_steps.py")
        return self.usual[call.operation](call)

    def refuse(self, problem: str) -> AwsResponse:
        """Records a problem and returns the error response to a request that AWS would reject."""
        with self._lock:
            self.problems.append(problem)
        return AwsResponse(400, {"__type": "SmokeRefusal", "message": problem})


@contextmanager
def account(folder: Path, other_hosts: tuple[str, ...]) -> Iterator[Account]:
    """Runs the server until the end of the block. Its authority's certificate is written to `folder`."""
    authority = trustme.CA()
    certificate = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*HOSTS, *other_hosts).configure_cert(context)
    with _Server(context, certificate) as server:
        yield server.account


class _Server(LoopbackServer):
    def __init__(self, context: ssl.SSLContext, authority: Path) -> None:
        super().__init__(_Handler)
        # The TLS handshake is made in each connection's thread, so that a failing one does not block the others.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.account = Account(self.port, authority)

    def handle_error(self, *_: object) -> None:
        """Prints nothing: the function that closed the connection reports the error."""


class _Handler(LoopbackHandler):
    names = None  # the functions call AWS and the providers under their own names

    server: _Server

    def _respond(self) -> None:
        account = self.server.account
        host = self.headers.get("host", "").removesuffix(":443")
        try:
            content = decode_body(self.headers, self.read_body(_MAX_BODY_BYTES) or b"")
            answer = self._answer_of(account, host, content)
        except S3RequestError as exc:
            answer = account.refuse(f"{self.command} {host}: {exc}")
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        headers = {"x-amzn-RequestId": "00000000-0000-4000-8000-000000000000"}
        if not isinstance(answer.body, bytes):
            headers["Content-Type"] = "application/x-amz-json-1.0"
        if host.startswith("dynamodb."):
            headers["x-amz-crc32"] = str(crc32(body))
        self.answer(answer.status, body, [*(headers | answer.headers).items()])

    do_GET = do_HEAD = do_POST = do_PUT = _respond  # noqa: N815 - names of the base class

    def _answer_of(self, account: Account, host: str, content: bytes) -> AwsResponse:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if host not in HOSTS:
            parameters = {"Headers": headers, "Body": content}
            return account.answer(Call("", host, f"{self.command} https://{host}{url.path}", parameters))
        service, target = HOSTS[host]
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        presigned = query.get("X-Amz-Credential")
        credential = _CREDENTIAL.search(f"Credential={presigned}" if presigned else headers.get("authorization", ""))
        if credential is None or credential.groups()[1:] != (REGION, service):
            return account.refuse(f"{self.command} {host} is not signed for {service} in {REGION}")
        if not (headers.get("x-amz-security-token") or query.get("X-Amz-Security-Token")):
            return account.refuse(f"{self.command} {host} has no session token of a role")
        function = credential[1]
        if service == "s3":
            key = unquote(url.path).removeprefix("/")
            parameters = {"Bucket": BUCKET, "Key": key, "Body": content, "Headers": headers}
            call = Call(function, service, S3_OPERATIONS[self.command], parameters)
            answer = account.answer(call)
            if call.operation == "PutObject" and answer.status == 200:
                return AwsResponse(200, b"", {"ETag": '"etag"', **stored_checksum(self.headers)})
            return answer
        if service == "lambda":  # POST /2015-03-31/functions/NAME/invocations
            return account.answer(Call(function, service, "Invoke", {"FunctionName": url.path.split("/")[3]}))
        prefix, _, operation = headers.get("x-amz-target", "").partition(".")
        if prefix != target:
            return account.refuse(f"{self.command} {host} has the target {prefix!r} instead of {target!r}")
        return account.answer(Call(function, service, operation, json.loads(content)))
