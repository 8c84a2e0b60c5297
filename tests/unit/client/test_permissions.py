"""The routes that the documentation gives for each command are those that it requests."""

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from catchlight_cli.gallery import GalleryServer
from local.http.api import Route
from tests.tasks_api_in_memory import TasksApiInMemory, a_task, an_image
from tests.unit.client.conftest import Ran
from tests.unit.template.expanded import REPOSITORY, of_type

PAGE = (REPOSITORY / "docs" / "command-line.md").read_text()
Catchlight = Callable[..., Ran]
PROMPT = '{"prompt": "a tree"}'
ROUTES = [
    Route(method.upper(), path, "")
    for path, operations in of_type("AWS::ApiGatewayV2::Api")["TasksApi"]["Body"]["paths"].items()
    for method in operations
]


def an_api() -> TasksApiInMemory:
    """A tasks API with one image, whose link is refused once as an expired one is."""
    image = an_image("t1", b"bytes")
    api = TasksApiInMemory([a_task("t1", images=[image])], {image.key or "": b"bytes"})
    refused: list[httpx.Request] = []

    def refuse_once(request: httpx.Request) -> httpx.Response | None:
        if request.url.host == "storage.example" and not refused:
            refused.append(request)
            return httpx.Response(403)
        return None

    api.before = refuse_once
    return api


def routes_of(api: TasksApiInMemory) -> set[str]:
    """Returns the routes that were requested, in the form of a policy's resource."""
    requested = [request for request in api.requests if request.url.host == "api.example"]
    return {
        re.sub(r"\{\w+\}", "*", f"{route.method}{route.path}")
        for request in requested
        for route in ROUTES
        if route.match(request.method, request.url.path) is not None
    }


def documented(command: str) -> set[str]:
    (row,) = re.findall(rf"^\| `{command}` \| ((?:`[A-Z]+/[^`|]*`(?:, )?)+) \|$", PAGE, re.MULTILINE)
    return set(re.findall(r"`([^`]+)`", row))


@pytest.mark.parametrize(
    "commands",
    [
        [["submit", "acedata", PROMPT, "--wait", "0"], ["submit", "--release-key", "o1"]],
        [["register", "acedata", "t2"]],
        [["get", "flux-kontext/t1"], ["get", "t1"]],
        [["wait", "t1", "--timeout", "0"]],
        [["list"]],
        [["download", "--output-dir", "FOLDER"], ["download", "t1", "--output-dir", "FOLDER"]],
    ],
    ids=lambda commands: commands[0][0],
)
def test_a_command_requests_the_documented_routes(
    catchlight: Catchlight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    api = an_api()

    for command in commands:
        catchlight(api, *command)

    assert routes_of(api) == documented(commands[0][0])


def test_the_gallery_requests_the_documented_routes() -> None:
    api = an_api()

    with GalleryServer(api.client()) as server, httpx.Client(base_url=server.url, trust_env=False) as browser:
        for path in ("api/tasks", "api/tasks/flux-kontext/t1", "images/flux-kontext/t1/result-0"):
            assert browser.get(path).status_code == 200

    assert routes_of(api) == documented("gallery")
