"""A web page of another origin, in a real browser, neither reads nor changes the local stack and the gallery."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from catchlight_cli.gallery import GalleryServer
from local.loopback import LoopbackHandler, LoopbackServer
from local.moto.server import MotoServer
from local.simulator import Simulator
from tests.tasks_api_in_memory import TasksApiInMemory

READ = """url => fetch(url).then(response => response.text()).catch(() => "refused by the browser")"""
# What a page may send to any server without asking it first: https://fetch.spec.whatwg.org/#simple-header
RESET = """url => fetch(url, {method: "POST", mode: "no-cors", body: "x"}).then(() => "sent")"""


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


def test_it_reads_nothing_of_the_aws_services(foreign_page: Page, moto: MotoServer) -> None:
    for path in ("/", "/moto-api/data.json", "/images"):
        assert foreign_page.evaluate(READ, f"{moto.url}{path}") == "refused by the browser"


def test_it_changes_nothing_in_the_aws_services(foreign_page: Page, moto: MotoServer) -> None:
    for path in ("/moto-api/reset", "/?Action=CreateQueue&QueueName=evil", "/images/key"):
        foreign_page.evaluate(RESET, f"{moto.url}{path}")

    assert [bucket["Name"] for bucket in moto.client("s3").list_buckets()["Buckets"]] == ["images"]
    assert "Contents" not in moto.client("s3").list_objects_v2(Bucket="images")
    assert "QueueUrls" not in moto.client("sqs").list_queues()


def test_it_reads_nothing_of_the_simulator(foreign_page: Page) -> None:
    with Simulator() as simulator:
        assert foreign_page.evaluate(READ, simulator.url) == "refused by the browser"


def test_it_reads_nothing_of_the_gallery_although_it_knows_the_url(foreign_page: Page) -> None:
    with GalleryServer(TasksApiInMemory().client()) as gallery:
        assert foreign_page.evaluate(READ, f"{gallery.url}tasks") == "refused by the browser"
