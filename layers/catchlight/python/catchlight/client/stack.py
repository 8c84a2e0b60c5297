"""Finds a deployed or a local stack with its resources, parameters and boto3 clients."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from catchlight.client.aws_errors import describe_error
from catchlight.client.deployed_target import DEFAULT_STACK_NAME, deployed_target
from catchlight.client.errors import CatchlightError, UsageError
from catchlight.client.local_state import DEFAULT_STATE_DIR, LocalState, read_local_state
from catchlight.client.loopback_session import NO_PROXIES, loopback_session

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.client import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackTypeDef

# More retries than in the functions: no provider waits for a response here, so commands can wait until throttling ends.
CLIENT_CONFIG = Config(
    connect_timeout=5,
    read_timeout=20,
    retries={"total_max_attempts": 8, "mode": "standard"},
    max_pool_connections=32,
    user_agent_extra="catchlight-cli",
)


@dataclass(frozen=True)
class Stack:
    """A stack: its physical resources by their logical ids in the template, its parameters, and its boto3 clients."""

    name: str
    region: str
    is_local: bool
    api_url: str
    resources: Mapping[str, str]  # physical ids: the values of Ref
    parameters: Mapping[str, str]
    session: boto3.Session = field(repr=False)
    outputs: Mapping[str, str] = field(default_factory=dict)  # empty for a local stack
    tasks_api_url: str = ""  # empty if the stack's template is older than the tasks API
    endpoint_url: str | None = None
    simulator_url: str | None = None
    logs: Path | None = None  # the folder with the logs of a local stack's functions
    custom_endpoint: str = ""  # CloudFormation's endpoint, if the user's AWS settings (AWS_ENDPOINT_URL) replace it
    _clients: dict[str, Any] = field(default_factory=dict, repr=False)
    _creating: Lock = field(default_factory=Lock, repr=False, compare=False)

    def client(self, service: str, config: Config | None = None) -> Any:
        """Returns the boto3 client of a service, created once. Thread-safe, unlike the session that creates it."""
        with self._creating:
            if service not in self._clients:
                config = CLIENT_CONFIG.merge(config) if config else CLIENT_CONFIG
                config = config.merge(NO_PROXIES) if self.is_local else config
                self._clients[service] = self.session.client(  # type: ignore[call-overload] # the name is not a literal
                    service, endpoint_url=self.endpoint_url, config=config
                )
            return self._clients[service]

    def close(self) -> None:
        """Closes the clients' connections."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def resource(self, logical_id: str) -> str:
        """Returns a resource's physical id: a table's name, a queue's URL, a secret's or state machine's ARN.

        Raises:
            CatchlightError: the stack has no such resource, because its template is older.
        """
        try:
            return self.resources[logical_id]
        except KeyError:
            update = "Restart it with `make up`" if self.is_local else "Update it with `make build && sam deploy`"
            raise CatchlightError(f"{self} has no {logical_id}. {update}.") from None

    def require_tasks_api(self) -> str:
        """Returns the URL of the tasks API.

        Raises:
            CatchlightError: the stack has none, because its template is older.
        """
        if not self.tasks_api_url:
            raise CatchlightError(f"{self} has no tasks API. Update it with `make build && sam deploy`.")
        return self.tasks_api_url

    def seconds(self, parameter: str, default: int) -> int:
        """Returns the value of a template parameter in seconds; `default` if the stack does not have it."""
        return int(self.parameters.get(parameter, default))

    @property
    def table(self) -> str:
        """The tasks table's name."""
        return self.resource("TasksTable")

    @property
    def bucket(self) -> str:
        """The image bucket's name."""
        return self.resource("ImagesBucket")

    def __str__(self) -> str:
        if self.is_local:
            return f"the local stack at {self.api_url}"
        return f"stack {self.name} in {self.region}" + (f" at {self.custom_endpoint}" if self.custom_endpoint else "")


@dataclass(frozen=True)
class StackChoice:
    """The options that select a stack; None if an option was not given. docs/command-line.md describes their order."""

    stack_name: str | None = None
    local: bool = False
    state_dir: str | None = None
    region: str | None = None
    profile: str | None = None

    def find(self) -> Stack:
        """Finds the selected stack. If a candidate cannot be read, an error is raised; the next one is not tried.

        Raises:
            UsageError: the options contradict each other, or do not determine a stack.
            CatchlightError: there is no such stack, or it cannot be read with these credentials.
        """
        self._check()
        state_dir = Path(self.state_dir or DEFAULT_STATE_DIR)
        if self.local or self.state_dir is not None:
            return find_local(state_dir)
        names_aws = self.stack_name or self.region or self.profile
        # Prevents changes in AWS by mistake: while a local stack runs, a deployed one must be selected by an option.
        if not names_aws and (state := read_local_state(state_dir)):
            return _local_stack(state, state_dir)
        return find_deployed(self.stack_name, region=self.region, profile=self.profile)

    def _check(self) -> None:
        deployed = {"--stack-name": self.stack_name, "--region": self.region, "--profile": self.profile}
        given = {option: value for option, value in deployed.items() if value is not None}
        for option, value in {**given, "--state-dir": self.state_dir}.items():
            if value == "":
                raise UsageError(
                    f"{option} is empty. Check the shell variable that it is set from, or leave the option out."
                )
        if given and (self.local or self.state_dir is not None):
            local = "--local" if self.local else "--state-dir"
            raise UsageError(f"{local} selects a local stack, {', '.join(given)} a deployed one. Use only one of them.")


def find_local(state_dir: Path) -> Stack:
    """Finds the local stack of `make up` that has its state in this folder.

    Raises:
        CatchlightError: the folder has no state of a local stack.
        UsageError: the state cannot be read, or its stack is starting, stopping or no longer running.
    """
    state = read_local_state(state_dir)
    if state is None:
        raise CatchlightError(
            f"{state_dir} has no state of a local stack. Start one with `make up`, or select a deployed stack with "
            "--stack-name."
        )
    return _local_stack(state, state_dir)


def _local_stack(state: LocalState, state_dir: Path) -> Stack:
    return Stack(
        name=DEFAULT_STACK_NAME,
        region=state.region,
        is_local=True,
        api_url=state.api_url,
        resources=state.resources,
        parameters=state.parameters,
        session=loopback_session(state.region),
        tasks_api_url=state.tasks_api_url or "",
        endpoint_url=state.aws_endpoint_url,
        simulator_url=state.simulator_url,
        logs=state_dir / "logs",
    )


def find_deployed(stack_name: str | None, *, region: str | None = None, profile: str | None = None) -> Stack:
    """Finds a deployed stack. Name, region and profile default to those of `sam deploy` here (samconfig.toml).

    Raises:
        UsageError: name, region or profile cannot be determined, or are unknown. No request was sent.
        CatchlightError: there is no stack of this name, or it cannot be read with these credentials.
        BotoCoreError, ClientError: see `aws_errors.describe_error`.
    """
    name, session = deployed_target(stack_name, region, profile)
    with closing(session.client("cloudformation", config=CLIENT_CONFIG)) as cloudformation:
        endpoint = cloudformation.meta.endpoint_url
        described = _describe(cloudformation, name)
        resources = _resources(cloudformation, name)
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
    parameters = {given["ParameterKey"]: given.get("ParameterValue", "") for given in described.get("Parameters", [])}
    return Stack(
        name=name,
        region=session.region_name,
        is_local=False,
        api_url=outputs.get("CallbackUrlPattern", "").partition("/callbacks/")[0],
        outputs=outputs,
        tasks_api_url=outputs.get("TasksApiUrl", ""),
        resources=resources,
        parameters=parameters,
        session=session,
        # In every partition, AWS's own endpoints begin with the service's name.
        custom_endpoint="" if str(urlsplit(endpoint).hostname).startswith("cloudformation") else endpoint,
    )


def _describe(cloudformation: "CloudFormationClient", name: str) -> "StackTypeDef":
    try:
        return cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as exc:
        if exc.response["Error"]["Code"] == "ValidationError":  # "Stack with id ... does not exist"
            raise CatchlightError(
                f"There is no stack {name} in {cloudformation.meta.region_name}. Select another stack with "
                "--stack-name, another region with --region, or the local stack of `make up` with --local."
            ) from exc
        raise CatchlightError(f"Stack {name} cannot be read with your credentials. {describe_error(exc)}") from exc


def _resources(cloudformation: "CloudFormationClient", name: str) -> dict[str, str]:
    # Not DescribeStackResources, which returns 100 resources at most.
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
    return {
        found["LogicalResourceId"]: found["PhysicalResourceId"]
        for page in pages
        for found in page["StackResourceSummaries"]
        if "PhysicalResourceId" in found
    }
