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


def test_an_application_is_type_checked(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(_PROGRAM)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", str(tmp_path), "app.py"]
    ran = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True, check=False)
    (mistake, summary) = ran.stdout.splitlines()
    assert 'variable has type "int"' in mistake  # it is the only one
    assert "Found 1 error" in summary
