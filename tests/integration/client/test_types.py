"""What type checkers know of an application that uses the client from outside this checkout."""

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
from pathlib import Path

from catchlight.client import ImageKind, TaskResponse, TaskStatus, connect, download


def links(task: TaskResponse) -> list[str]:
    return [image.link for image in task.images if image.link]


with connect("catchlight") as api:
    new = api.submit("acedata", {"prompt": "a tree"})
    number: int = new.task_id
    for task in api.tasks(status=TaskStatus.ARCHIVED):
        links(task)
    list(download(api, api.tasks(), Path("images"), kinds=[ImageKind.RESULT]))
"""
# The types of these libraries are no part of the client's interface, and take nine tenths of the time.
_SETTINGS = """
[mypy]
strict = True
[mypy-boto3.*,botocore.*,mypy_boto3_dynamodb.*,mypy_boto3_s3.*,mypy_boto3_secretsmanager.*,mypy_boto3_sqs.*,httpx.*]
follow_imports = skip
"""


def test_an_application_is_type_checked(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(_PROGRAM)
    settings = tmp_path / "mypy.ini"
    settings.write_text(_SETTINGS)
    mypy = [sys.executable, "-m", "mypy", "--config-file", str(settings), "--cache-dir", str(tmp_path), "app.py"]
    ran = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True, check=False)
    (mistake, summary) = ran.stdout.splitlines()
    assert 'variable has type "int"' in mistake  # it is the only one
    assert "Found 1 error" in summary
