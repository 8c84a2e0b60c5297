"""Type checkers find mistakes in an application that uses the client from outside this checkout."""

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
from pathlib import Path

from catchlight.client import ImageKind, TaskResponse, TaskStatus, connect, connect_async, download


def links(task: TaskResponse) -> list[str]:
    return [image.link for image in task.images if image.link]


with connect("catchlight") as api:
    new = api.submit("acedata", {"prompt": "a tree"})
    number: int = new.task_id
    for task in api.tasks(status=TaskStatus.ARCHIVED):
        links(task)
    list(download(api, api.tasks(), Path("images"), kinds=[ImageKind.RESULT]))


async def submit() -> list[str]:
    async with connect_async("catchlight") as api:
        new = await api.submit("acedata", {"prompt": "a tree"}, idempotency_key="order-17")
        number: int = new.task_id
        task: TaskResponse = await api.wait(new.provider, new.task_id, timeout_seconds=60)
        await api.submit("acedata", {}, idempotencykey="order-17")
        return links(task) + [url for task in [task async for task in api.tasks(limit=3)] for url in links(task)]
"""
# The types of these libraries are not part of the client's interface. Checking them would take nine tenths of the time.
_SETTINGS = """
[mypy]
strict = True
[mypy-boto3.*,botocore.*,mypy_boto3_dynamodb.*,mypy_boto3_s3.*,mypy_boto3_secretsmanager.*,mypy_boto3_sqs.*,httpx.*]
follow_imports = skip
"""


def test_a_type_checker_finds_exactly_the_mistakes_of_an_application(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(_PROGRAM)
    settings = tmp_path / "mypy.ini"
    settings.write_text(_SETTINGS)
    mypy = [sys.executable, "-m", "mypy", "--config-file", str(settings), "--cache-dir", str(tmp_path), "app.py"]
    process = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True, check=False)
    (*mistakes, summary) = process.stdout.splitlines()
    number, awaited_number, argument = mistakes  # the program has no others
    assert 'variable has type "int"' in number
    assert 'variable has type "int"' in awaited_number
    assert 'Unexpected keyword argument "idempotencykey"' in argument
    assert "Found 3 errors" in summary
