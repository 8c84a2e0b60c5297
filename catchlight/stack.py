"""Finds a stack, deployed or local, and what belongs to it. The one place that knows how."""

import json
import os
import socket
import tomllib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from catchlight.errors import CatchlightError, explain

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.client import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackTypeDef

DEFAULT_STACK_NAME = "catchlight"
DEFAULT_STATE_DIR = ".local"
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
    desk_url: str = ""  # of a stack from an older template there is none
    endpoint_url: str | None = None
    simulator_url: str | None = None
    logs: Path | None = None  # where a local stack's functions write theirs
    _clients: dict[str, Any] = field(default_factory=dict, repr=False)

    def client(self, service: str, config: Config | None = None) -> Any:
        """A boto3 client; the same one for each call. Make it before threads share it."""
        if service not in self._clients:
            config = CLIENT_CONFIG.merge(config) if config else CLIENT_CONFIG
            # Loopback needs no proxy, whatever the environment says.
            config = config.merge(Config(proxies={})) if self.is_local else config
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
        return f"the local stack at {self.api_url}" if self.is_local else f"stack {self.name} in {self.region}"


@dataclass(frozen=True)
class StackChoice:
    """Which stack a command line means. Without a word it is a local stack that is up, else the deployed one."""

    stack_name: str | None = None
    local: bool = False
    state_dir: str = DEFAULT_STATE_DIR
    region: str | None = None
    profile: str | None = None

    def find(self) -> Stack:
        """The stack.

        Raises:
            CatchlightError: there is none, or it cannot be read with these credentials.
        """
        names_aws = self.stack_name or self.region or self.profile
        # Nothing in AWS must change by mistake: where a local stack is up, AWS has to be named.
        if self.local or (not names_aws and is_up(Path(self.state_dir))):
            return find_local(Path(self.state_dir))
        return find_deployed(self.stack_name, region=self.region, profile=self.profile)


def is_up(state_dir: Path) -> bool:
    """Whether a local stack has its state there and answers."""
    try:
        info = json.loads((state_dir / "stack.json").read_text())
        address = urlsplit(info["aws_endpoint_url"])
        with socket.create_connection((address.hostname, address.port), timeout=2):
            return True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def find_local(state_dir: Path) -> Stack:
    """The stack of `make up`.

    Raises:
        CatchlightError: none is up.
    """
    try:
        info = json.loads((state_dir / "stack.json").read_text())
    except FileNotFoundError:
        raise CatchlightError(
            f"No stack has its state in {state_dir}: `make up` first, or name a deployed one with --stack-name."
        ) from None
    except (OSError, ValueError) as exc:
        raise CatchlightError(f"{state_dir / 'stack.json'} cannot be read: {exc}. Start the stack again.") from exc
    if not is_up(state_dir):
        raise CatchlightError(
            f"The local stack of {state_dir} is not running any more: `make up` first, or name a deployed one with "
            "--stack-name."
        )
    return Stack(
        name=DEFAULT_STACK_NAME,
        region=info["region"],
        is_local=True,
        api_url=info["api_url"],
        resources=info.get("resources", {}),
        parameters=info.get("parameters", {}),
        session=_session_of_this_machine(info["region"]),
        desk_url=info.get("desk_url") or "",
        endpoint_url=info["aws_endpoint_url"],
        simulator_url=info.get("simulator_url"),
        logs=state_dir / "logs",
    )


def find_deployed(stack_name: str | None, *, region: str | None = None, profile: str | None = None) -> Stack:
    """A stack in AWS, by its name; name, region and profile default to what `sam deploy` uses here (samconfig.toml).

    Raises:
        CatchlightError: there is none of this name, or the credentials do not let it be read.
        BotoCoreError, ClientError: see `errors.explain`.
    """
    deployed = _samconfig(Path("samconfig.toml"))
    name = stack_name or deployed.get("stack_name") or DEFAULT_STACK_NAME
    if name == deployed.get("stack_name"):
        region, profile = region or deployed.get("region"), profile or deployed.get("profile")
    # boto3 reads AWS_DEFAULT_REGION only; SAM and the AWS CLI take AWS_REGION as well.
    session = boto3.Session(region_name=region or os.environ.get("AWS_REGION"), profile_name=profile)
    with closing(session.client("cloudformation", config=CLIENT_CONFIG)) as cloudformation:
        described = _describe(cloudformation, name)
        resources = _resources(cloudformation, name)
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
    parameters = {given["ParameterKey"]: given.get("ParameterValue", "") for given in described.get("Parameters", [])}
    return Stack(
        name=name,
        region=session.region_name,
        is_local=False,
        api_url=outputs.get("CallbackUrlPattern", "").partition("/callbacks/")[0],
        desk_url=outputs.get("DeskUrl", ""),
        resources=resources,
        parameters=parameters,
        session=session,
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


def _samconfig(path: Path) -> dict[str, str]:
    """What `sam deploy` would use: the stack's name, its region, the profile."""
    try:
        sections = tomllib.loads(path.read_text()).get("default", {})
    except (OSError, tomllib.TOMLDecodeError):
        return {}
    found: dict[str, str] = {}
    for command in ("global", "deploy"):  # as SAM has it: the command's own section wins
        found |= sections.get(command, {}).get("parameters", {})
    return {key: found[key] for key in ("stack_name", "region", "profile") if isinstance(found.get(key), str)}


def _session_of_this_machine(region: str) -> boto3.Session:
    """Dummy credentials, and nothing of the user's profile: it might name a place outside this machine."""
    variables: dict[str, Any] = {
        "profile": (None, [], None, None),
        "config_file": (None, [], os.devnull, None),
        "credentials_file": (None, [], os.devnull, None),
        "ignore_configured_endpoint_urls": (None, [], True, None),
    }
    return boto3.Session(
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - a dummy
        region_name=region,
        botocore_session=botocore.session.Session(session_vars=variables),
    )
