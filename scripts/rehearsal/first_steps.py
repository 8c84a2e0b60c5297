"""Runs the README's commands, from the first deployment to the first image, in a new folder, as a new user does."""

import io
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from catchlight_cli.command_line import run
from local import REPOSITORY
from scripts.rehearsal import RehearsalError
from scripts.rehearsal.deployment import Deployment

README = REPOSITORY / "README.md"
EXPORT = 'eval "$(catchlight outputs --export)"'
# `doctor` reads the functions' metrics, which the rehearsal does not have in CloudWatch, and its checks of the endpoint
# wait for a shorter time than the functions' first starts take.
NOT_REHEARSED = {"catchlight doctor"}


def first_steps() -> list[str]:
    """Returns the commands of `catchlight` in the README's sections "Deploy" and "Use", in their order."""
    text = README.read_text()
    sections = text[text.index("\n## Deploy\n") : text.index("\n## On your machine\n")]
    blocks = re.findall(r"^```sh\n(.*?)^```$", sections, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line == EXPORT or line.startswith("catchlight ")]


def run_first_steps(deployment: Deployment, folder: Path, api_key: str) -> int:
    """Runs the README's commands against the deployed stack; returns the number of images in the folder `images`.

    Raises:
        RehearsalError: a command fails, or the variables are not the stack's outputs.
    """
    shutil.copy(REPOSITORY / "samconfig.toml", folder)
    with _as_user(deployment, folder):
        for line in first_steps():
            if line == EXPORT:
                _check_exports(_output_of("catchlight outputs --export", api_key), deployment.outputs())
            elif line not in NOT_REHEARSED:
                _output_of(line, api_key)
    return sum(path.suffix in (".jpg", ".png", ".webp") for path in (folder / "images").rglob("*"))


def set_keys(deployment: Deployment, folder: Path, providers: list[str], api_key: str) -> None:
    """Stores the API key of each provider by `catchlight keys set`."""
    with _as_user(deployment, folder):
        for provider in providers:
            _output_of(f"catchlight keys set {provider}", api_key)


def _output_of(line: str, typed: str) -> str:
    output, messages = io.StringIO(), io.StringIO()
    stdin = io.TextIOWrapper(io.BytesIO(typed.encode()))
    with redirect_stdout(output), redirect_stderr(messages), mock.patch.object(sys, "stdin", stdin):
        status = run(shlex.split(line)[1:])
    if status:
        raise RehearsalError(f"`{line}` ended with exit code {status}: {output.getvalue()}{messages.getvalue()}")
    return output.getvalue()


def _check_exports(script: str, outputs: dict[str, str]) -> None:
    exported = dict(shlex.split(line)[1].split("=", 1) for line in script.splitlines())
    if not set(outputs.values()) <= set(exported.values()):
        raise RehearsalError(f"The exported variables are not the stack's outputs: {script}")


@contextmanager
def _as_user(deployment: Deployment, folder: Path) -> Iterator[None]:
    with mock.patch.dict(os.environ, deployment.ministack.root_settings), chdir(folder):
        yield
