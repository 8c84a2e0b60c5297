"""If the stack cannot be determined, a command prints the reason and exits before any request to AWS.

There is one test for each row of the table in docs/command-line.md that lists these errors.
"""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.endpoint import Endpoint

from catchlight.client import connect
from catchlight.client.errors import UsageError
from catchlight.client.local_state import LOCK_FILE
from catchlight.client.stack import StackChoice
from catchlight_cli.command_line import run
from local import state_dir
from local.moto.server import MotoServer
from tests.integration.cli.conftest import STACK_NAME
from tests.integration.cli.test_finding_stacks import local_state

NAMED = f'version = 0.1\n[default.deploy.parameters]\nstack_name = "{STACK_NAME}"\n'
YAML = f"version: 0.1\ndefault:\n  deploy:\n    parameters:\n      stack_name: {STACK_NAME}\n"


@pytest.fixture
def listening() -> Iterator[int]:
    """A port at which a server listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def requests(cloud: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records the AWS requests of a test. The account has stacks with the default name and with samconfig's name."""
    template = json.dumps({"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}})
    for name in (STACK_NAME, "catchlight"):
        boto3.client("cloudformation").create_stack(StackName=name, TemplateBody=template)
    operations: list[str] = []
    make_request = Endpoint.make_request

    def recording(self: Endpoint, operation: Any, request: Any) -> Any:
        operations.append(operation.name)
        return make_request(self, operation, request)

    monkeypatch.setattr(Endpoint, "make_request", recording)
    return operations


@pytest.fixture
def rejected(requests: list[str], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command, checks that it is rejected before any request, and returns its error message."""

    def run_and_check(*arguments: str) -> str:
        status = run(["redrive", "--all", *arguments])
        output = capsys.readouterr()
        assert (status, output.out, requests) == (2, "", [])
        assert output.err.count("\n") == 1
        return output.err

    return run_and_check


def samconfig(folder: Path, content: bytes | str, name: str = "samconfig.toml") -> None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


# ------------------------------------------------------------------------------------------------ samconfig


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xef\xbb\xbf" + NAMED.encode(), "starts with a byte order mark"),
        (NAMED.encode("utf-16"), "'utf-8' codec can't decode"),
        (NAMED.replace("pictures", "ä").encode("latin-1"), "'utf-8' codec can't decode"),
        ("version = 0.1\n[default.deploy\n", "line 2"),
        (NAMED + 'stack_name = "twice"\n', "Cannot overwrite a value"),
        (
            "version = 0.1\n[default.deploy.parameters]\nstack_name = 1\n",
            "stack_name is 1, but must be a quoted string",
        ),
        (NAMED + "region = 1\n", "region is 1, but must be a quoted string"),
        (NAMED + 'profile = ["a"]\n', "but must be a quoted string"),
        ("default = 1\n", "default is not a table"),
        ("[default]\ndeploy = 1\n", "default.deploy is not a table"),
        ("[default.global]\nparameters = 1\n", "default.global.parameters is not a table"),
    ],
)
def test_a_malformed_samconfig_toml_is_an_error(
    rejected: Callable[..., str], tmp_path: Path, content: bytes | str, message: str
) -> None:
    samconfig(tmp_path, content)

    for options in ([], ["--region", "us-east-1"], ["--stack-name", STACK_NAME]):
        error = rejected(*options)
        assert "samconfig.toml cannot be read: " in error
        assert message in error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (YAML + "      stack_name: twice\n", "duplicate key"),
        ("version: 0.1\n default:\n- x", "mapping values are not allowed"),
        ("", "the document is not a table"),
        ("- 1\n", "the document is not a table"),
        ("default:\n", "default is not a table"),
        (YAML.replace(STACK_NAME, "2026"), "stack_name is 2026, but must be a quoted string"),
    ],
)
@pytest.mark.parametrize("name", ["samconfig.yaml", "samconfig.yml"])
def test_a_malformed_samconfig_yaml_is_an_error(
    rejected: Callable[..., str], tmp_path: Path, content: str, message: str, name: str
) -> None:
    samconfig(tmp_path, content, name)

    error = rejected()
    assert f"{name} cannot be read: " in error
    assert message in error


def test_a_samconfig_that_is_a_folder_or_a_dangling_link_is_an_error(
    rejected: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "samconfig.toml").mkdir()
    assert "samconfig.toml cannot be read: Is a directory" in rejected()

    (tmp_path / "samconfig.toml").rmdir()
    (tmp_path / "samconfig.toml").symlink_to("gone")
    # Also if samconfig.yaml is valid: SAM reads samconfig.toml first.
    samconfig(tmp_path, YAML, "samconfig.yaml")
    assert "samconfig.toml cannot be read: No such file" in rejected()


def test_a_samconfig_without_read_permission_is_an_error(
    rejected: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samconfig(tmp_path, NAMED)
    read = Path.read_bytes

    def refused(self: Path) -> bytes:
        if self.name == "samconfig.toml":
            # Simulated, because the tests may run as root, who can read files of any mode.
            raise PermissionError(13, "Permission denied")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert "samconfig.toml cannot be read: Permission denied" in rejected()


@pytest.mark.parametrize(
    "content", ["", "version = 0.1\n", NAMED.replace("default", "prod"), NAMED.replace(STACK_NAME, "")]
)
def test_a_samconfig_without_stack_name_is_an_error(rejected: Callable[..., str], tmp_path: Path, content: str) -> None:
    samconfig(tmp_path, content)

    assert "samconfig.toml has no stack_name in [default.deploy.parameters]" in rejected()


def test_the_first_samconfig_in_the_order_of_sam_is_used(requests: list[str], tmp_path: Path) -> None:
    samconfig(tmp_path, YAML.replace(STACK_NAME, "catchlight"), "samconfig.yml")
    assert StackChoice().find().name == "catchlight"
    samconfig(tmp_path, b"\xef\xbb\xbf" + YAML.encode(), "samconfig.yaml")
    assert StackChoice().find().name == STACK_NAME
    samconfig(tmp_path, NAMED.replace(STACK_NAME, "catchlight"))
    assert StackChoice().find().name == "catchlight"


def test_commands_in_a_subfolder_of_a_checkout_are_rejected(
    rejected: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listening: int
) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    local_state(tmp_path / ".local", listening)
    assert f"Run the command in {tmp_path}, or select a stack" in rejected()

    (tmp_path / ".local" / "stack.json").unlink()
    samconfig(tmp_path, NAMED)
    assert f"there is {tmp_path}/samconfig.toml" in rejected()


def test_without_samconfig_and_local_state_the_default_stack_name_is_used(requests: list[str]) -> None:
    assert StackChoice().find().name == "catchlight"


# ------------------------------------------------------------------------------------------------ stack.json


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"api_url": "http://127.0.0.1:30', "Invalid JSON"),
        ("", "Invalid JSON"),
        ("[]", "document: Input should be an object"),
        ("{}", "aws_endpoint_url: Field required"),
        ('{"api_url": 1, "region": "us-east-1", "aws_endpoint_url": "http://127.0.0.1:1"}', "api_url: Input should be"),
        (
            '{"api_url": "http://127.0.0.1:1", "region": "us-east-1", "aws_endpoint_url": "https://s3.amazonaws.com"}',
            "aws_endpoint_url: String should match pattern",
        ),
        ("\xff", "stack.json cannot be read"),
    ],
)
def test_a_malformed_stack_json_is_an_error(
    rejected: Callable[..., str], tmp_path: Path, content: str, message: str, listening: int
) -> None:
    local_state(tmp_path / ".local", listening)
    (tmp_path / ".local" / "stack.json").write_bytes(content.encode("latin-1"))
    samconfig(tmp_path, NAMED)

    for options in ([], ["--local"], ["--state-dir", ".local"]):
        error = rejected(*options)
        assert message in error
        assert "cannot be read" in error


def test_a_stack_json_that_is_a_folder_or_a_dangling_link_is_an_error(
    rejected: Callable[..., str], tmp_path: Path
) -> None:
    samconfig(tmp_path, NAMED)
    (tmp_path / ".local").write_text("")
    assert ".local/stack.json cannot be read: Not a directory" in rejected()

    (tmp_path / ".local").unlink()
    (tmp_path / ".local" / "stack.json").mkdir(parents=True)
    assert ".local/stack.json cannot be read: Is a directory" in rejected()

    (tmp_path / ".local" / "stack.json").rmdir()
    (tmp_path / ".local" / "stack.json").symlink_to("gone")
    assert ".local/stack.json cannot be read: No such file" in rejected()


def test_a_local_stack_that_does_not_run_any_more_is_an_error(
    rejected: Callable[..., str], tmp_path: Path, listening: int
) -> None:
    samconfig(tmp_path, NAMED)
    state = local_state(tmp_path / ".local", listening)
    # The port is used by another program; the lock of the local stack is not held any more.
    (state / LOCK_FILE).write_text("1\n")
    assert "the local stack of .local is not running. Start it with `make up`" in rejected()

    (state / LOCK_FILE).unlink()
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    local_state(state, free)
    assert "is not running." in rejected()
    local_state(state, 65536)
    assert "is not running." in rejected()


def test_a_local_stack_that_is_starting_is_an_error(
    rejected: Callable[..., str], tmp_path: Path, listening: int
) -> None:
    samconfig(tmp_path, NAMED)
    with state_dir.owned(tmp_path / ".local"):
        assert "is starting or stopping. Repeat the command in a moment" in rejected()
        local_state(tmp_path / ".local", listening)
        assert StackChoice().find().is_local


def test_a_state_folder_without_stack_json_is_an_error(
    requests: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samconfig(tmp_path, NAMED)

    for options, folder in ((["--state-dir", ".lokal"], ".lokal"), (["--local"], ".local")):
        # The options are valid, but the stack does not exist: exit code 1, as for --stack-name.
        assert run(["redrive", "--all", *options]) == 1
        assert f"{folder} has no state of a local stack. Start one with `make up`" in capsys.readouterr().err
    assert requests == []


# ------------------------------------------------------------------------------------------------ options, AWS settings


@pytest.mark.parametrize("option", ["--stack-name", "--region", "--profile", "--state-dir"])
def test_an_empty_option_is_an_error(rejected: Callable[..., str], tmp_path: Path, option: str, listening: int) -> None:
    local_state(tmp_path / ".local", listening)
    samconfig(tmp_path, NAMED)

    assert f"{option} is empty" in rejected(option, "")


@pytest.mark.parametrize("local", [["--local"], ["--state-dir", ".local"]])
@pytest.mark.parametrize("deployed", [["--region", "us-east-1"], ["--profile", "a"], ["--stack-name", STACK_NAME]])
def test_options_for_a_local_and_a_deployed_stack_exclude_each_other(
    rejected: Callable[..., str], tmp_path: Path, local: list[str], deployed: list[str], listening: int
) -> None:
    local_state(tmp_path / ".local", listening)
    if local == ["--local"] and deployed[0] == "--stack-name":
        with pytest.raises(SystemExit, match="2"):
            rejected(*local, *deployed)
    else:
        assert f"{local[0]} selects a local stack, {deployed[0]} a deployed one" in rejected(*local, *deployed)


@pytest.mark.parametrize("source", ["--profile", "AWS_PROFILE", "samconfig.toml"])
def test_an_unknown_profile_is_an_error(
    rejected: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    samconfig(tmp_path, NAMED + ('profile = "nobody"\n' if source == "samconfig.toml" else ""))
    if source == "AWS_PROFILE":
        monkeypatch.setenv("AWS_PROFILE", "nobody")

    error = rejected(*(["--profile", "nobody"] if source == "--profile" else []))
    assert "The config profile (nobody) could not be found. `aws configure list-profiles` lists your profiles." in error


def test_a_malformed_aws_config_file_is_an_error(
    rejected: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aws.config").write_text("[profile")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws.config"))

    assert "Unable to parse config file" in rejected()


@pytest.mark.parametrize("region", ["us-esat-1", "frankfurt", "us east 1", "US-EAST-1"])
@pytest.mark.parametrize("source", ["--region", "AWS_REGION", "samconfig.toml"])
def test_an_unknown_region_is_an_error(
    rejected: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, region: str
) -> None:
    samconfig(tmp_path, NAMED + (f'region = "{region}"\n' if source == "samconfig.toml" else ""))
    if source == "AWS_REGION":
        monkeypatch.setenv("AWS_REGION", region)

    error = rejected(*(["--region", region] if source == "--region" else []))
    assert f"There is no AWS region '{region}'. Correct it" in error


def test_a_missing_region_is_an_error(
    requests: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "")

    assert run(["status"]) == 1
    assert capsys.readouterr().err == "error: No AWS region is configured. Use --region, or set AWS_REGION.\n"
    assert requests == []


def test_an_unknown_stack_is_an_error(requests: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    samconfig(tmp_path, NAMED)

    assert run(["redrive", "--all", "--stack-name", "other"]) == 1
    assert "There is no stack other in us-east-1. Select another stack with --stack-name" in capsys.readouterr().err
    # Only the request that looks for this stack.
    assert requests == ["DescribeStacks"]


def test_the_users_endpoint_url_is_shown_with_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    server = MotoServer()
    server.start()
    request.addfinalizer(server.stop)
    template = json.dumps({"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}})
    server.client("cloudformation").create_stack(StackName=STACK_NAME, TemplateBody=template)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)

    assert str(StackChoice(STACK_NAME).find()) == f"stack pictures in us-east-1 at {server.url}"


# ------------------------------------------------------------------------------------------------ the Python client


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stack_name": STACK_NAME, "local": True}, "--local selects a local stack, --stack-name a deployed one"),
        ({"stack_name": ""}, "--stack-name is empty"),
        ({"state_dir": ".lokal", "region": "us-east-1"}, "--state-dir selects a local stack, --region a deployed one"),
        ({}, "samconfig.toml cannot be read"),
        ({"stack_name": STACK_NAME}, "samconfig.toml cannot be read"),
    ],
)
def test_connect_raises_the_same_errors_as_the_commands(
    requests: list[str], tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    samconfig(tmp_path, "[default")

    with pytest.raises(UsageError, match=message):
        connect(**arguments)
    assert requests == []
