"""Finds a stack, deployed or local, and what belongs to it. The one place that knows how."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from catchlight.client.aws_errors import CatchlightError, UsageError, explain
from catchlight.client.deployed_target import DEFAULT_STACK_NAME, deployed_target
from catchlight.client.local_state import DEFAULT_STATE_DIR, LocalState, read_local_state
from catchlight.client.loopback_session import NO_PROXIES, loopback_session

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.client import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackTypeDef

# Nobody waits for a response as a provider does: patience with throttling instead of speed.
CLIENT_CONFIG = Config(
    connect_timeout=5,
    read_timeout=20,
    retries={"total_max_attempts": 8, "mode": "standard"},
    max_pool_connections=32,
    user_agent_extra="catchlight-cli",
)


@dataclass(frozen=True)
class Stack:
    """A stack's resources by their logical ids in the template, and clients that speak to them."""

    name: str
    region: str
    is_local: bool
    api_url: str
    resources: Mapping[str, str]  # what Ref gives for them
    parameters: Mapping[str, str]
    session: boto3.Session = field(repr=False)
    tasks_api_url: str = ""  # of a stack from an older template there is none
    endpoint_url: str | None = None
    simulator_url: str | None = None
    logs: Path | None = None  # where a local stack's functions write theirs
    custom_endpoint: str = ""  # in place of AWS's own, from the user's AWS settings (AWS_ENDPOINT_URL)
    _clients: dict[str, Any] = field(default_factory=dict, repr=False)

    def client(self, service: str, config: Config | None = None) -> Any:
        """A boto3 client; the same one for each call. Make it before threads share it."""
        if service not in self._clients:
            config = CLIENT_CONFIG.merge(config) if config else CLIENT_CONFIG
            config = config.merge(NO_PROXIES) if self.is_local else config
            self._clients[service] = self.session.client(  # type: ignore[call-overload] # a name that is not literal
                service, endpoint_url=self.endpoint_url, config=config
            )
        return self._clients[service]

    def close(self) -> None:
        """Ends the clients' connections."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def resource(self, logical_id: str) -> str:
        """A resource's physical id: a table's name, a queue's URL, a secret's or state machine's ARN.

        Raises:
            CatchlightError: the stack has none, as one that was deployed from an older template.
        """
        try:
            return self.resources[logical_id]
        except KeyError:
            update = "start it again with `make up`" if self.is_local else "update it: `make build && sam deploy`"
            raise CatchlightError(f"{self} has no {logical_id}; {update}.") from None

    def seconds(self, parameter: str, default: int) -> int:
        """A parameter of the template that is a number of seconds."""
        return int(self.parameters.get(parameter, default))

    @property
    def table(self) -> str:
        """The tasks table's name."""
        return self.resource("TasksTable")

    @property
    def bucket(self) -> str:
        """The image bucket's name."""
        return self.resource("ImagesBucket")

    @cached_property
    def provider_base_urls(self) -> dict[str, str]:
        """Base URLs that differ from the providers' own."""
        pairs = filter(None, self.parameters.get("ProviderBaseUrls", "").split(","))
        return {provider: url.rstrip("/") for provider, _, url in (pair.partition("=") for pair in pairs)}

    def __str__(self) -> str:
        if self.is_local:
            return f"the local stack at {self.api_url}"
        return f"stack {self.name} in {self.region}" + (f" at {self.custom_endpoint}" if self.custom_endpoint else "")


@dataclass(frozen=True)
class StackChoice:
    """Which stack a command line means; docs/command-line.md has the order. None stands for an option not given."""

    stack_name: str | None = None
    local: bool = False
    state_dir: str | None = None
    region: str | None = None
    profile: str | None = None

    def find(self) -> Stack:
        """The stack. What stands in the way of one candidate is an error, never a reason to take the next one.

        Raises:
            CatchlightError: there is none, or it cannot be read with these credentials.
        """
        self._check()
        state_dir = Path(self.state_dir or DEFAULT_STATE_DIR)
        if self.local or self.state_dir is not None:
            return find_local(state_dir)
        names_aws = self.stack_name or self.region or self.profile
        # Nothing in AWS must change by mistake: where a local stack is up, AWS has to be named.
        if not names_aws and (state := read_local_state(state_dir)):
            return _local_stack(state, state_dir)
        return find_deployed(self.stack_name, region=self.region, profile=self.profile)

    def _check(self) -> None:
        deployed = {"--stack-name": self.stack_name, "--region": self.region, "--profile": self.profile}
        given = {option: value for option, value in deployed.items() if value is not None}
        for option, value in {**given, "--state-dir": self.state_dir}.items():
            if value == "":
                raise UsageError(
                    f"{option} is empty: no stack is meant by that. Look at the variable that it comes from, or leave "
                    "the option out."
                )
        if given and (self.local or self.state_dir is not None):
            local = "--local" if self.local else "--state-dir"
            raise UsageError(f"{local} means a local stack, {', '.join(given)} one in AWS: leave one of them out.")


def find_local(state_dir: Path) -> Stack:
    """The stack of `make up`.

    Raises:
        CatchlightError: there is none.
        UsageError: what is in the folder cannot be read, or its stack has ended.
    """
    state = read_local_state(state_dir)
    if state is None:
        raise CatchlightError(
            f"No stack has its state in {state_dir}: `make up` first, or name a deployed one with --stack-name."
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
    """A stack in AWS, by its name; name, region and profile default to what `sam deploy` uses here (samconfig.toml).

    Raises:
        UsageError: name, region or profile cannot be determined, or are unknown. No request was sent.
        CatchlightError: there is none of this name, or the credentials do not let it be read.
        BotoCoreError, ClientError: see `errors.explain`.
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
        tasks_api_url=outputs.get("TasksApiUrl", ""),
        resources=resources,
        parameters=parameters,
        session=session,
        # All of AWS's own, in every partition, begin with the service.
        custom_endpoint="" if str(urlsplit(endpoint).hostname).startswith("cloudformation") else endpoint,
    )


def _describe(cloudformation: "CloudFormationClient", name: str) -> "StackTypeDef":
    try:
        return cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as exc:
        if exc.response["Error"]["Code"] == "ValidationError":  # "Stack with id ... does not exist"
            raise CatchlightError(
                f"There is no stack {name} in {cloudformation.meta.region_name}. Name another with --stack-name, its "
                "region with --region; or speak to the stack of `make up` with --local."
            ) from exc
        raise CatchlightError(f"Stack {name} cannot be read with your credentials. {explain(exc)}") from exc


def _resources(cloudformation: "CloudFormationClient", name: str) -> dict[str, str]:
    # Not DescribeStackResources: it stops at a hundred.
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
    return {
        found["LogicalResourceId"]: found["PhysicalResourceId"]
        for page in pages
        for found in page["StackResourceSummaries"]
        if "PhysicalResourceId" in found
    }
