"""The stack, its commands and the README's examples in a shell with hostile AWS and Python settings."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.test_readme import REPOSITORY, blocks
from tests.programs import run_program
from tests.user_settings import hostile_settings, run_module
from tests.waiting import TIMEOUT_SECONDS, eventually


class Shell:
    """Runs commands in a folder, with these environment variables."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.state = folder / ".local"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.environment = {**environment, **settings}

    def run(self, *command: str) -> str:
        return run_program(command, folder=self.folder, environment=self.environment)

    def catchlight(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "catchlight_cli", *arguments)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / ".venv").symlink_to(sys.prefix)
    shell = Shell(folder, hostile_settings(folder))
    command = [
        sys.executable,
        "-m",
        "local",
        "up",
        "--port",
        "0",
        "--time-scale",
        "0.05",
        "--state-dir",
        str(shell.state),
    ]
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=0o077,
    ) as process:
        eventually(lambda: process.poll() is not None or (shell.state / "stack.json").exists())
        assert process.poll() is None, process.stdout and process.stdout.read()
        yield shell
        process.terminate()
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0, output


def test_a_callback_is_archived_with_hostile_user_settings(shell: Shell) -> None:
    stack = json.loads((shell.state / "stack.json").read_text())
    assert stack["region"] == "us-east-1"
    # Its only image is valid for two weeks, so that a busy machine has time to download it.
    httpx.post(
        f"{stack['simulator_url']}/kie/api/v1/flux/kontext/generate",
        json={"prompt": "a lighthouse", "callBackUrl": stack["callback_urls"]["flux-kontext"]},
        headers={"Authorization": "Bearer any", "x-simulate": "null-original", "x-simulate-task-id": "hostile1"},
        trust_env=False,
        timeout=TIMEOUT_SECONDS,
    ).raise_for_status()
    shell.catchlight("register", "flux-kontext", "hostile1")

    # Without a stack option, the command uses the stack that runs in this folder.
    waited = json.loads(shell.catchlight("wait", "flux-kontext/hostile1", "--timeout", str(TIMEOUT_SECONDS), "--json"))
    assert [task["status"] for task in waited["tasks"]] == ["ARCHIVED"]
    shell.catchlight("download", "flux-kontext/hostile1", "--output-dir", "images")
    assert list((shell.folder / "images").glob("*_result-0.*"))
    assert json.loads(shell.catchlight("status", "--json"))["tasks"]["byStatus"]["ARCHIVED"] == 1


def test_the_curl_example_runs_with_hostile_user_settings(shell: Shell) -> None:
    (block,) = [block for block in blocks("sh") if "curl" in block]

    output = shell.run("bash", "-euc", block)

    assert '{"status": "received"}' in output
    assert "'status': 'FAILED'" in output


def test_the_test_suite_ignores_hostile_user_settings(tmp_path: Path) -> None:
    files = ("tests/unit/test_aws_clients.py", "tests/integration/test_reconcile_tasks.py")
    run_module("pytest", "-q", "-p", "no:cacheprovider", *files, folder=tmp_path)


def test_the_smoke_test_ignores_hostile_user_settings(tmp_path: Path) -> None:
    run_module("scripts.smoke", folder=tmp_path)
