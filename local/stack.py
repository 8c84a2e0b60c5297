"""Runs the local stack as a context manager: starts it on entry and ends all its processes on exit."""

import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from unittest import mock
from urllib.parse import urlsplit
from wsgiref.types import WSGIApplication

from botocore.credentials import Credentials
from moto.dynamodb.models import dynamodb_backends
from moto.sqs.models import sqs_backends

from local import REPOSITORY, LocalStackError, state_dir
from local.account import ACCOUNT_ID, REGION
from local.artefact import Artefact
from local.events.event_source import EventSource
from local.events.queue import QueueEventSource
from local.events.schedule import ScheduleSource
from local.events.stream import StreamEventSource
from local.http.api import HttpApi
from local.http.sigv4 import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from local.lambda_.logs import ErrorListener, LogFolder
from local.lambda_.runtime import Function
from local.lambda_.runtime_api import InvocationResult
from local.lambda_.runtime_folder import make_runtime_folder
from local.lambda_.sandbox import IMAGE_HOSTS_VARIABLE
from local.moto import patches
from local.moto.objects import objects_in_files
from local.moto.server import Middleware, MotoServer
from local.permissions.enforcement import Permissions
from local.template.deployment import Deployment, Resource
from local.template.expand import Template, load_template
from local.template.resource_types import RESOURCE_TYPES

LOCAL_API_KEY = "local-api-key"

# Only one stack per process: moto's state belongs to the process.
_one_at_a_time = threading.Lock()


@dataclass(kw_only=True, eq=False)
class LocalStack:
    """Runs the real template and the real handlers on this machine, as a context manager.

    Functions have the permissions of their roles in the template, as in AWS; `permissions` records which ones they use.

    Only one stack can run in a process. Raises LocalStackError for features that cannot run locally, after stopping
    everything that was already started.
    """

    port: int = 0
    aws_port: int = 0
    time_scale: float = 1.0
    """Scales the state machine's waits and retries, schedules, and the delay before a failed message is redelivered."""
    state_dir: Path | str = ".local"
    provider_urls: Mapping[str, str] = field(default_factory=dict)
    """Base URLs of providers. The other providers are simulated, if the simulator runs."""
    image_hosts: Sequence[str] = ()
    """HOST:PORT from which images may be downloaded by http, besides public https URLs. With `HOST:PORT=unlisted`, the
    functions' URL policy decides by the host's name whether the host is allowed."""
    webhook_url: str = ""
    """URL to which webhooks are sent. Unlike the parameter WebhookUrl, it may also be an http URL of this machine."""
    simulator: bool = True
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Values for the template's parameters."""
    template: Path | None = None
    """A template that replaces the repository's."""
    artefact: Artefact | None = None
    """The built functions to run; they import only from the artefact. None: the functions of the sources, which also
    import from the environment of this process."""
    on_error: ErrorListener | None = None
    aws_middleware: Middleware | None = None
    """Wraps moto for all requests to AWS services: to record them, or to inject faults."""

    functions: dict[str, Function] = field(default_factory=dict, init=False)
    resources: Mapping[str, Resource] = field(default_factory=dict, init=False)
    """The values of Ref and GetAtt by logical id."""
    info: dict[str, Any] = field(default_factory=dict, init=False)
    """All addresses and names, as in stack.json."""
    _stack: ExitStack = field(default_factory=ExitStack, init=False)
    _apis: dict[str, HttpApi] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._state_dir = Path(self.state_dir)

    def __enter__(self) -> Self:
        """Starts the stack and returns when it can process the first callback without delay."""
        if not _one_at_a_time.acquire(blocking=False):
            raise LocalStackError("A local stack is already running in this process: stop it first.")
        self._stack.callback(_one_at_a_time.release)
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stops everything that was started, in reverse order."""
        self._stack.close()

    def boto3_client(self, service: str) -> Any:
        """Returns a boto3 client of the stack's AWS endpoint."""
        return self._moto.client(service)

    def invoke(self, function: str, event: Any) -> InvocationResult:
        """Runs a function, given its logical id, as Lambda's Invoke does."""
        return self.functions[function].invoke(json.dumps(event).encode())

    def _start(self) -> None:
        # The first step, because the folder may belong to another running stack.
        self._stack.enter_context(state_dir.owned(self._state_dir))
        self._logs = LogFolder(self._state_dir / "logs", self.on_error)
        self.permissions = Permissions(self._logs.error)
        self._moto = MotoServer(self.aws_port, self._middleware)
        # moto's Step Functions sends the requests of integrations other than Lambda to this port.
        self._stack.enter_context(mock.patch.dict(os.environ, {"MOTO_PORT": str(self._moto.port)}))
        # moto's Step Functions logs an error for each path that a Choice state does not find in its input. A patch
        # reports failed executions.
        logging.getLogger("moto.stepfunctions").setLevel(logging.CRITICAL)
        objects = self._stack.enter_context(state_dir.temporary_folder(self._state_dir, state_dir.OBJECTS_PREFIX))
        self._stack.enter_context(objects_in_files(objects))
        self._stack.enter_context(
            patches.installed(
                self.time_scale, self._invoke_by_arn, lambda: self.boto3_client("lambda"), self._logs.error
            )
        )
        self._moto.start()
        self._stack.callback(self._moto.stop)
        self._stack.callback(_stop_executions)

        simulator_url = self._start_simulator() if self.simulator else None
        if self.webhook_url.startswith("http:"):
            receiver = urlsplit(self.webhook_url)
            self.image_hosts = [*self.image_hosts, f"{receiver.hostname}:{receiver.port or 80}"]

        deployment = self._deploy()
        self.resources = deployment.resources
        self.permissions.enforce(deployment)
        self._start_functions(deployment)
        self._start_event_sources(deployment)
        for name, api in deployment.apis.items():
            self._apis[name].serve(api.routes, api.stage, self.functions)
        self._prewarm(deployment)

        self.info = self._describe(deployment, simulator_url, self._start_gallery())
        self._stack.enter_context(state_dir.published(self._state_dir, self.info))

    def _middleware(self, application: WSGIApplication) -> WSGIApplication:
        """Checks permissions first: a denied call reaches neither the given middleware nor moto."""
        return self.permissions.around(self.aws_middleware(application) if self.aws_middleware else application)

    def _start_simulator(self) -> str:
        from local.simulator import Simulator

        # The stack's time scale keeps generation times and URL lifetimes in proportion to the polling intervals.
        simulator = self._stack.enter_context(Simulator(time_scale=self.time_scale))
        self.provider_urls = {**simulator.provider_urls, **self.provider_urls}
        self.image_hosts = [*self.image_hosts, *simulator.image_hosts]
        return simulator.url

    def _open_apis(self, template: Template) -> None:
        """Gives each HTTP API of the template its own port, in ascending order, before functions receive the URLs."""
        for number, name in enumerate(template.of_type("AWS::ApiGatewayV2::Api")):
            option = "--port (this API uses the port after it)" if number else "--port"
            api = HttpApi(self.port + number if self.port else 0, self._logs, option=option)
            self._stack.callback(api.stop)
            self._apis[name] = api

    def _deploy(self) -> Deployment:
        unchecked = {}
        if self.provider_urls:
            base_urls = ",".join(f"{provider}={url}" for provider, url in self.provider_urls.items())
            # The template's pattern requires https, which the simulator on this machine does not serve.
            unchecked["ProviderBaseUrls"] = base_urls
        if self.webhook_url:
            unchecked["WebhookUrl"] = self.webhook_url
        built = self.artefact.template if self.artefact else REPOSITORY / "template.yaml"
        template = load_template((self.template or built).resolve(), self.parameters, unchecked)
        self._open_apis(template)
        overrides = {}
        if "ProviderKeysSecret" in template.resources:
            # Providers without a base URL here get no key, so functions send them no requests: a request to the real
            # service would fail, after waiting for the internet.
            keys = {provider: {"apiKey": LOCAL_API_KEY} for provider in self.provider_urls}
            overrides["ProviderKeysSecret"] = {"SecretString": json.dumps(keys)}
        deployment = Deployment(
            template, RESOURCE_TYPES, self.boto3_client, lambda name: self._apis[name].url, overrides
        )
        deployment.deploy()
        return deployment

    def _start_functions(self, deployment: Deployment) -> None:
        environment = {"AWS_ENDPOINT_URL": self._moto.url}
        if self.image_hosts:
            environment[IMAGE_HOSTS_VARIABLE] = ",".join(self.image_hosts)
        runtime_dir = self._make_runtime_dir() if self.artefact else None
        for name, configuration in deployment.functions.items():
            self.functions[name] = Function(replace(configuration, runtime_dir=runtime_dir), self._logs, environment)

    def _make_runtime_dir(self) -> Path:
        temporary = state_dir.temporary_folder(self._state_dir, state_dir.RUNTIME_PREFIX)
        folder = self._stack.enter_context(temporary)
        make_runtime_folder(folder)
        return folder

    def _start_event_sources(self, deployment: Deployment) -> None:
        # At the end, the callbacks run in reverse order: the logs are closed; all functions and event sources begin to
        # stop, so that they end at the same time; then the stack waits for the functions, the event sources and the
        # APIs. The functions are stopped first, so that the others do not wait for running handlers.
        sources = list(self._event_sources(deployment))
        for source in sources:
            source.start()
            self._stack.callback(source.stop)
        for each in self.functions.values():
            self._stack.callback(each.stop)
        for source in sources:
            self._stack.callback(source.begin_stop)
        for each in self.functions.values():
            self._stack.callback(each.begin_stop)
        self._stack.callback(self._logs.close)

    def _event_sources(self, deployment: Deployment) -> Iterator[EventSource]:
        sqs = self.boto3_client("sqs")

        def send_message(url: str, body: str) -> None:
            sqs.send_message(QueueUrl=url, MessageBody=body)

        for function, stream_mapping in deployment.stream_mappings:
            table = dynamodb_backends[ACCOUNT_ID][REGION].get_table(stream_mapping.stream_arn.split("/")[1])
            assert table.stream_shard is not None  # a table in a stream mapping has a stream ARN
            yield StreamEventSource(
                stream_mapping, table.stream_shard, self.functions[function], send_message, self._logs
            )
        for function, queue_mapping in deployment.queue_mappings:
            queue = sqs_backends[ACCOUNT_ID][REGION].get_queue(queue_mapping.queue_arn.rpartition(":")[2])
            yield QueueEventSource(queue_mapping, queue, self.functions[function], sqs, self.time_scale, self._logs)
        for schedule in deployment.schedules:
            yield ScheduleSource(schedule, self.functions[schedule.function], send_message, self.time_scale, self._logs)

    def _prewarm(self, deployment: Deployment) -> None:
        """Starts sandboxes ahead of time: a first callback must not wait for imports.

        Waits for the functions with routes; those with a stream warm up while the stack is already in use. All others
        start at their first invocation, as in Lambda: many stacks end without a poll, a webhook or an hourly run.
        """
        routed = {route.function for api in deployment.apis.values() for route in api.routes}
        for sandbox in [self.functions[name].prewarm() for name in routed]:
            sandbox.wait_until_ready()
        for name in {function for function, _ in deployment.stream_mappings} - routed:
            self.functions[name].prewarm()

    def _invoke_by_arn(self, name_or_arn: str, payload: bytes) -> InvocationResult:
        return self.functions[name_or_arn.rpartition(":")[2]].invoke(payload)

    def _start_gallery(self) -> str | None:
        """Starts the gallery, if the template has the tasks API from which it reads, and returns its URL."""
        if "TasksApi" not in self._apis:
            return None
        from catchlight.client import TasksClient
        from catchlight.client.signing import SignedRequests
        from catchlight.client.stack import find_local
        from catchlight_cli.gallery import GalleryServer, StackReader, TaskActions
        from catchlight_cli.gallery.thumbnails import IS_AVAILABLE, Thumbnails

        signed = SignedRequests(Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), REGION)
        api = self._stack.enter_context(TasksClient(self._apis["TasksApi"].url, signed, trust_environment=False))
        actions = self._stack.enter_context(closing(TaskActions(lambda: find_local(self._state_dir))))
        thumbnails = Thumbnails(self._state_dir / "thumbnails") if IS_AVAILABLE else None
        reader = self._stack.enter_context(closing(StackReader(lambda: find_local(self._state_dir))))
        server = GalleryServer(api, actions=actions, thumbnails=thumbnails, reader=reader)
        return self._stack.enter_context(server).url

    def _read_secret(self, arn: str) -> str:
        return str(self.boto3_client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])

    def _describe(self, deployment: Deployment, simulator_url: str | None, gallery_url: str | None) -> dict[str, Any]:
        from catchlight.providers import PROVIDERS

        def ref(logical_id: str) -> str | None:
            resource = deployment.resources.get(logical_id)
            return resource.ref if resource else None

        api_url = next((api.url for api in self._apis.values()), None)
        api = self._apis.get("TasksApi")
        callback_urls = {}
        if secret := ref("CallbackTokenSecret"):
            token = self._read_secret(secret)
            # The ids of all providers, and those of the accounts in `provider_urls`.
            providers = sorted({*PROVIDERS, *self.provider_urls})
            callback_urls = {provider: f"{api_url}/callbacks/{provider}/{token}" for provider in providers}
        webhook_secret = ref("WebhookSecret")
        return {
            "api_url": api_url,
            "tasks_api_url": api.url if api else None,
            "gallery_url": gallery_url,
            "aws_endpoint_url": self._moto.url,
            "region": REGION,
            "table": ref("TasksTable"),
            "bucket": ref("ImagesBucket"),
            "archive_queue_url": ref("ArchiveQueue"),
            "archive_dlq_url": ref("ArchiveDeadLetters"),
            "state_machine_arn": ref("PollTasksStateMachine"),
            "callback_urls": callback_urls,
            "simulator_url": simulator_url,
            "webhook_url": deployment.template.parameters.get("WebhookUrl") or None,
            "webhook_secret": webhook_secret and self._read_secret(webhook_secret),
            "built": self.artefact is not None,
            # In the format in which CloudFormation returns them for a deployed stack: `catchlight` reads both.
            "resources": {logical_id: resource.ref for logical_id, resource in deployment.resources.items()},
            "parameters": deployment.template.parameters,
        }


def _stop_executions() -> None:
    """Stops running executions: they are threads of this process and must not continue in the next stack."""
    from moto.stepfunctions.parser.models import stepfunctions_parser_backends

    for machine in stepfunctions_parser_backends[ACCOUNT_ID][REGION].state_machines:
        for execution in machine.executions:
            if execution.status == "RUNNING":
                execution.stop(None, "Local.Stopped", "The local stack is going down")
