"""A web page of another origin, in a real browser, can neither read nor change the local stack and the gallery."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import httpx
import pytest
from playwright.sync_api import Browser, Page

from catchlight_cli.gallery import GalleryServer
from local.demo.chromium import ARGUMENTS, TIMEOUT_MILLISECONDS, find_chromium
from local.http.api import HttpApi, Route, Stage
from local.lambda_.logs import LogFolder
from local.lambda_.runtime_api import InvocationResult, RuntimeApi
from local.loopback import LoopbackHandler, LoopbackServer
from local.moto.server import MotoServer
from local.simulator import Simulator
from tests.tasks_api_in_memory import TasksApiInMemory

if TYPE_CHECKING:
    from local.lambda_.runtime import Function

READ = """url => fetch(url).then(response => response.text()).catch(() => "refused by the browser")"""
# A request that needs no CORS preflight: https://fetch.spec.whatwg.org/#simple-header
POST = """url => fetch(url, {method: "POST", mode: "no-cors", body: "x"}).then(() => "sent")"""


def is_served(url: str) -> bool:
    """Returns whether a program receives 200. Without this check, a wrong URL would also be refused by the browser."""
    return httpx.get(url, trust_env=False, timeout=60).status_code == 200


class _Page(LoopbackHandler):
    def do_GET(self) -> None:  # noqa: N802
        self.answer(200, b"<!doctype html><title>evil</title>", [("content-type", "text/html")])


@pytest.fixture
def foreign_page(browser: Browser) -> Iterator[Page]:
    server = LoopbackServer(_Page)
    server.start()
    page = browser.new_page()
    page.goto(f"http://localhost:{server.port}/")
    yield page
    page.close()
    server.stop()


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    server = MotoServer()
    server.start()
    server.client("s3").create_bucket(Bucket="images")
    yield server
    server.stop()


def test_a_foreign_page_cannot_read_the_aws_services(foreign_page: Page, moto: MotoServer) -> None:
    assert is_served(f"{moto.url}/")
    assert is_served(f"{moto.url}/images")
    for path in ("/", "/moto-api/data.json", "/images"):
        assert foreign_page.evaluate(READ, f"{moto.url}{path}") == "refused by the browser"


def test_a_foreign_page_cannot_change_the_aws_services(foreign_page: Page, moto: MotoServer) -> None:
    for path in ("/moto-api/reset", "/?Action=CreateQueue&QueueName=evil", "/images/key"):
        foreign_page.evaluate(POST, f"{moto.url}{path}")

    assert [bucket["Name"] for bucket in moto.client("s3").list_buckets()["Buckets"]] == ["images"]
    assert "Contents" not in moto.client("s3").list_objects_v2(Bucket="images")
    assert "QueueUrls" not in moto.client("sqs").list_queues()


def test_a_foreign_page_cannot_read_the_simulator(foreign_page: Page) -> None:
    with Simulator() as simulator:
        assert is_served(simulator.url)
        assert foreign_page.evaluate(READ, simulator.url) == "refused by the browser"


def test_a_foreign_page_with_the_secret_url_cannot_read_the_gallery(foreign_page: Page) -> None:
    with GalleryServer(TasksApiInMemory().client()) as gallery:
        url = f"{gallery.url}api/tasks"
        assert is_served(url)
        assert foreign_page.evaluate(READ, url) == "refused by the browser"


# ------------------------------------------------------------------------------------------------ functions


class _FakeFunction:
    """A function that returns 200 and records its events."""

    def __init__(self) -> None:
        self.events: list[bytes] = []

    def invoke(self, payload: bytes) -> InvocationResult:
        self.events.append(payload)
        return InvocationResult(b'{"statusCode": 200, "body": "{}"}')


@pytest.fixture
def function() -> _FakeFunction:
    return _FakeFunction()


@pytest.fixture
def api(tmp_path: Path, function: _FakeFunction) -> Iterator[HttpApi]:
    server = HttpApi(0, LogFolder(tmp_path))
    server.serve(
        [Route("POST", "/callbacks/{provider}/{token}", "Receive")], Stage(), {"Receive": cast("Function", function)}
    )
    yield server
    server.stop()


def test_a_foreign_page_cannot_invoke_functions(foreign_page: Page, api: HttpApi, function: _FakeFunction) -> None:
    url = f"{api.url}/callbacks/flux-kontext/{'t' * 48}"
    foreign_page.evaluate(POST, url)
    assert foreign_page.evaluate(READ, url) == "refused by the browser"
    assert function.events == []

    assert httpx.post(url, trust_env=False, timeout=60).status_code == 200
    assert len(function.events) == 1


def test_a_foreign_page_cannot_read_the_runtime_api(foreign_page: Page) -> None:
    runtime_api = RuntimeApi()
    runtime_api.start()
    try:
        url = f"http://127.0.0.1:{runtime_api.port}/elsewhere"
        assert foreign_page.evaluate(READ, url) == "refused by the browser"
    finally:
        runtime_api.stop()


# ------------------------------------------------------------------------------------------------ DNS rebinding


@pytest.fixture(scope="module")
def rebound(browser: Browser) -> Iterator[Page]:
    """A page in a browser that resolves evil.example to this machine, as after DNS rebinding."""
    rebinding = browser.browser_type.launch(
        executable_path=str(find_chromium()),
        args=[*ARGUMENTS, "--host-resolver-rules=MAP evil.example 127.0.0.1"],
        timeout=TIMEOUT_MILLISECONDS,
    )
    yield rebinding.new_page()
    rebinding.close()


def test_requests_for_a_rebound_host_name_are_rejected(rebound: Page, moto: MotoServer, api: HttpApi) -> None:
    runtime_api = RuntimeApi()
    runtime_api.start()
    with Simulator() as simulator, GalleryServer(TasksApiInMemory().client()) as gallery:
        for address in (moto.url, api.url, simulator.url, gallery.url, f"http://127.0.0.1:{runtime_api.port}"):
            response = rebound.goto(address.replace("127.0.0.1", "evil.example").replace("localhost", "evil.example"))
            assert response is not None
            assert response.status in (403, 421), address
    runtime_api.stop()
