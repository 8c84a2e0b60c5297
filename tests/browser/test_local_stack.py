"""Client, command line and gallery against the whole local stack, from a submission to the displayed image."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

import catchlight.client
from catchlight.api.response_models import TaskResponse
from catchlight.client import (
    APIError,
    NotFoundError,
    PermissionDeniedError,
    TasksClient,
    connect,
    connect_async,
    download,
)
from catchlight.models import TaskStatus
from catchlight_cli.command_line import parser, run
from local.artefact import Artefact
from local.stack import LocalStack

TIMEOUT_SECONDS = 300
PROMPT = "a small sail, <b>low sun</b>"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, artefact: Artefact | None) -> Iterator[LocalStack]:
    with LocalStack(state_dir=tmp_path_factory.mktemp("state"), time_scale=0.02, artefact=artefact) as stack:
        yield stack


@pytest.fixture(scope="module")
def state_dir(stack: LocalStack) -> str:
    return str(stack._state_dir)


@pytest.fixture(scope="module")
def api(state_dir: str) -> Iterator[TasksClient]:
    with connect(local=True, state_dir=state_dir) as api:
        yield api


@pytest.fixture(scope="module")
def archived(api: TasksClient) -> TaskResponse:
    """A submitted task that is archived."""
    new = api.submit("flux-kontext", {"prompt": PROMPT}, idempotency_key="order-1")
    assert new.outcome == "submitted"
    return api.wait(new.provider, new.task_id, timeout_seconds=TIMEOUT_SECONDS)


def test_a_submitted_task_is_archived(api: TasksClient, archived: TaskResponse) -> None:
    assert archived.status is TaskStatus.ARCHIVED
    assert (archived.request or {})["prompt"] == PROMPT
    assert {image.kind for image in archived.images} == {"origin", "result"}
    repeated = api.submit("flux-kontext", {"prompt": PROMPT}, idempotency_key="order-1")
    assert repeated.task_id == archived.task_id  # the image was not generated again
    assert archived.task in [task.task for task in api.tasks(provider="flux-kontext", limit=10)]
    with pytest.raises(APIError, match="key"):
        api.submit("flux-kontext", {"prompt": "another"}, idempotency_key="order-1")
    with pytest.raises(NotFoundError):
        api.task("flux-kontext", "nope")


def test_an_unsigned_request_is_rejected(stack: LocalStack) -> None:
    with (
        pytest.raises(PermissionDeniedError),
        TasksClient(stack.info["tasks_api_url"], trust_environment=False) as unsigned,
    ):
        unsigned.page()


def test_downloaded_images_equal_the_archived_ones(api: TasksClient, archived: TaskResponse, tmp_path: Path) -> None:
    (tmp_path / f".flux-kontext_{archived.task_id}_result-0.jpg.part").write_bytes(b"part of an earlier download")
    downloads = list(download(api, [archived], tmp_path))
    assert {each.outcome for each in downloads} == {"downloaded"}
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("flux-kontext_*")}
    assert digests == {image.sha256 for image in archived.images}
    link = api.image_link("flux-kontext", archived.task_id, "result", 0)
    with api.open_link(link, from_byte=100) as response:  # S3 continues at this byte
        assert response.status_code == 206
        assert int(response.headers["Content-Length"]) == (archived.images[-1].bytes or 0) - 100


def test_the_command_line_submits_and_reads_tasks(
    state_dir: str, archived: TaskResponse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def catchlight(*arguments: str) -> dict[str, object]:
        assert run([*arguments, "--local", "--state-dir", state_dir, "--json"]) == 0
        document: dict[str, object] = json.loads(capsys.readouterr().out)
        return document

    request = json.dumps({"prompt": "two of them", "action": "generate", "count": 2})
    submitted = catchlight("submit", "acedata", request, "--wait", str(TIMEOUT_SECONDS))
    task = submitted["task"]
    assert isinstance(task, dict)
    assert (task["status"], len(task["images"])) == ("ARCHIVED", 2)
    assert catchlight("register", "acedata", task["taskId"], "elsewhere-1")["tasks"] == [
        {"task": task["task"], "provider": "acedata", "taskId": task["taskId"], "outcome": "known"},
        {"task": "acedata#elsewhere-1", "provider": "acedata", "taskId": "elsewhere-1", "outcome": "registered"},
    ]
    for arguments in (("get", task["taskId"]), ("wait", f"acedata/{task['taskId']}")):
        tasks = catchlight(*arguments)["tasks"]
        assert isinstance(tasks, list)
        assert [found["archivedAt"] for found in tasks] == [task["archivedAt"]]
    listed = catchlight("list", "--status", "archived", "--since", "1h")["tasks"]
    assert isinstance(listed, list)
    assert {each["task"] for each in listed} == {task["task"], archived.task}
    images = catchlight("download", "--status", "archived", "--output-dir", str(tmp_path))["images"]
    assert isinstance(images, list)
    assert len(images) == len(list(tmp_path.iterdir())) == 2 + len(archived.images)


def test_the_gallery_shows_the_task(stack: LocalStack, archived: TaskResponse, browser: Browser) -> None:
    page = browser.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    page.goto(stack.info["gallery_url"])
    page.get_by_role("link", name=archived.task_id).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(PROMPT)
    expect(dialog).to_contain_text("Submitted and registered")
    image = page.locator(".main-image img")
    expect(image).to_be_visible()
    result = next(image for image in archived.images if image.kind == "result")
    assert image.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == result.width
    assert problems == []
    page.close()


def test_the_gallery_requires_its_secret_address(stack: LocalStack) -> None:
    url = httpx.URL(stack.info["gallery_url"])
    assert httpx.get(url, trust_env=False).status_code == 200
    assert httpx.get(url.copy_with(path="/api/tasks"), trust_env=False).status_code == 404


# ------------------------------------------------------------------------------------------------ docs/applications.md

PAGE = (Path(__file__).parents[2] / "docs" / "applications.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_python_examples_run(
    state_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example, asynchronous, *_ = blocks("python")  # the others: tests/integration/test_web_application.py
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("catchlight.client.connect", lambda _: connect(local=True, state_dir=state_dir))
    exec(compile(example, "applications.md", "exec"), {})
    printed = capsys.readouterr().out
    assert re.search(r"result ARCHIVED \d+ \d+ http://127\.0\.0\.1:", printed)
    assert printed.count("downloaded images/flux-kontext_") == len(list(Path("images").iterdir())) == 2

    monkeypatch.setattr("catchlight.client.connect_async", lambda _: connect_async(local=True, state_dir=state_dir))
    # In a separate thread: Playwright's event loop runs in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(exec, compile(asynchronous, "applications.md", "exec"), {}).result()
    printed = capsys.readouterr().out
    assert len(re.findall(r"^ARCHIVED result http://127\.0\.0\.1:", printed, re.MULTILINE)) == 2


def test_the_documented_commands_exist() -> None:
    commands = [line for line in blocks("sh")[0].splitlines() if line]
    assert len(commands) >= 5
    for line in commands:
        program, *arguments = shlex.split(line)
        assert program == "catchlight"
        parser().parse_args(arguments)
    known = set(re.findall(r"^\| `(\w+)", PAGE, re.MULTILINE))
    assert {"submit", "register", "get", "list", "download", "gallery"} <= known


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_curl_example_is_accepted(stack: LocalStack, tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "TASKS_API_URL": stack.info["tasks_api_url"],
        "AWS_REGION": stack.info["region"],
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "no_proxy": "*",
    }
    (example,) = [block for block in blocks("sh") if "curl" in block]
    process = subprocess.run(["sh", "-euc", example], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    documents = [json.loads(text) for text in process.stdout.replace("}{", "}\n{").splitlines()]
    assert documents[0]["outcome"] == "submitted"
    assert documents[0]["task"] in [task["task"] for task in documents[1]["tasks"]]


def test_the_errors_and_links_on_the_page_exist() -> None:
    for name in re.findall(r"^\| `(\w+Error)`", PAGE, re.MULTILINE):
        assert name in catchlight.client.__all__
    for link in re.findall(r"\]\((?!https:)([^)#]+)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / link).exists(), link
