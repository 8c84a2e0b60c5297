"""The stack that a command uses: a deployed one, by name, or the local one; and the error if it does not exist."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from catchlight.client.errors import CatchlightError
from catchlight.client.stack import StackChoice, find_deployed, find_local
from tests.integration.cli.conftest import API_URL, STACK_NAME, Deployed
from tests.integration.conftest import TABLE_NAME


@pytest.fixture
def listening() -> Iterator[int]:
    """A port at which a server listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def local_state(folder: Path, port: int) -> Path:
    """Writes the state of a local stack."""
    folder.mkdir(exist_ok=True)
    info = {
        "api_url": "http://127.0.0.1:3000",
        "aws_endpoint_url": f"http://127.0.0.1:{port}",
        "region": "us-east-1",
        "simulator_url": None,
        "resources": {"TasksTable": "local-table"},
        "parameters": {"GiveUpAfterSeconds": "60"},
    }
    (folder / "stack.json").write_text(json.dumps(info))
    return folder


# ------------------------------------------------------------------------------------------------ in AWS


def test_a_deployed_stack_has_its_resources_and_parameters(deployed: Deployed) -> None:
    stack = find_deployed(STACK_NAME)

    assert stack.table == TABLE_NAME
    assert stack.resources == deployed.resources
    assert stack.resource("ArchiveQueue").startswith("https://sqs.")
    assert stack.resource("PollTasksStateMachine").startswith("arn:aws:states:")
    assert stack.seconds("GiveUpAfterSeconds", 1) == 21600
    assert (stack.api_url, stack.region, stack.is_local) == (API_URL, "us-east-1", False)


def test_all_pages_of_resources_are_read(cloud: None) -> None:
    resources = {f"Queue{number}": {"Type": "AWS::SQS::Queue"} for number in range(150)}
    boto3.client("cloudformation").create_stack(
        StackName="large", TemplateBody=json.dumps({"Resources": {**resources, "Last": {"Type": "AWS::SQS::Queue"}}})
    )

    assert len(find_deployed("large").resources) == 151


def test_the_error_for_a_missing_resource_names_the_command_that_adds_it(deployed: Deployed) -> None:
    with pytest.raises(CatchlightError, match=r"has no NewQueue\. Update it with `make build && sam deploy`"):
        find_deployed(STACK_NAME).resource("NewQueue")


def test_an_unknown_stack_name_is_an_error(deployed: Deployed) -> None:
    deployed.run("status", expect=0)
    with pytest.raises(
        CatchlightError, match=r"There is no stack other in us-east-1\. Select another stack with --stack-name"
    ):
        find_deployed("other")


def test_a_missing_permission_for_cloudformation_is_named(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    make = boto3.Session.client

    def refused(self: boto3.Session, *arguments: Any, **settings: Any) -> Any:
        client: Any = make(self, *arguments, **settings)

        def fail(**_: Any) -> None:
            error: Any = {"Code": "AccessDenied", "Message": "not authorized to perform cloudformation:DescribeStacks"}
            raise ClientError({"Error": error}, "DescribeStacks")

        client.meta.events.register("before-call.cloudformation.DescribeStacks", fail)
        return client

    monkeypatch.setattr(boto3.Session, "client", refused)

    with pytest.raises(CatchlightError, match=r"do not allow DescribeStacks: .* Request the permission"):
        find_deployed(STACK_NAME)


def test_name_region_and_profile_are_read_from_samconfig(
    cloud: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "aws.config"
    config.write_text("[profile studio]\nregion = us-west-1\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    boto3.client("cloudformation", region_name="eu-central-1").create_stack(
        StackName="ours", TemplateBody='{"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}}'
    )
    (tmp_path / "samconfig.toml").write_text(
        '[default.global.parameters]\nstack_name = "ours"\nregion = "us-west-2"\n'
        '[default.deploy.parameters]\nregion = "eu-central-1"\nprofile = "studio"\n'
    )

    stack = find_deployed(None)
    assert (stack.name, stack.region, stack.session.profile_name) == ("ours", "eu-central-1", "studio")
    # The region in samconfig.toml applies only to the stack that it names; options of the command line take precedence.
    with pytest.raises(CatchlightError, match="no stack theirs in us-east-1"):
        find_deployed("theirs")
    with pytest.raises(CatchlightError, match="no stack ours in us-east-2"):
        find_deployed(None, region="us-east-2")


# ------------------------------------------------------------------------------------------------ on this machine


def test_a_local_stack_is_read_from_its_state(tmp_path: Path, listening: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Settings of the user's shell do not make a client connect to another machine.
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "https://dynamodb.example")
    stack = find_local(local_state(tmp_path / ".local", listening))

    assert (stack.is_local, stack.table, stack.seconds("GiveUpAfterSeconds", 1)) == (True, "local-table", 60)
    client = stack.client("dynamodb")
    assert client.meta.endpoint_url == f"http://127.0.0.1:{listening}"
    assert client._request_signer._credentials.access_key == "local"
    with pytest.raises(CatchlightError, match="Restart it with `make up`"):
        stack.resource("Other")


def test_a_missing_local_stack_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CatchlightError, match=r"has no state of a local stack\. Start one with `make up`"):
        find_local(tmp_path)


def test_a_local_stack_that_does_not_run_any_more_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    state = local_state(tmp_path / ".local", port)

    with pytest.raises(CatchlightError, match=r"is not running\. Start it with `make up`"):
        find_local(state)


# ------------------------------------------------------------------------------------------------ choice


def test_a_running_local_stack_is_used_unless_an_option_selects_aws(
    deployed: Deployed, tmp_path: Path, listening: int
) -> None:
    local_state(tmp_path / ".local", listening)

    assert StackChoice().find().is_local
    assert StackChoice(local=True).find().is_local
    assert not StackChoice(stack_name=STACK_NAME).find().is_local
    # With a region or a profile, the stack in AWS is used.
    with pytest.raises(CatchlightError, match="There is no stack catchlight in eu-west-1"):
        StackChoice(region="eu-west-1").find()


def test_without_a_local_stack_the_deployed_one_is_used(deployed: Deployed, tmp_path: Path) -> None:
    (tmp_path / "samconfig.toml").write_text(f'[default.global.parameters]\nstack_name = "{STACK_NAME}"\n')

    assert StackChoice().find().name == STACK_NAME
    with pytest.raises(CatchlightError, match="Start one with `make up`"):
        StackChoice(local=True).find()


def test_the_stack_in_use_is_printed(deployed: Deployed) -> None:
    deployed.run("status")

    assert "Using stack pictures in us-east-1." in deployed.stderr
