"""Responses of the gallery's server over real sockets, and the requests that it refuses."""

import contextlib
import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from botocore.exceptions import TokenRetrievalError

from catchlight.api.response_models import TaskResponse
from catchlight.client.errors import CatchlightError
from catchlight.models import TaskStatus
from catchlight.recovery.event_publication import INVOKE_CONFIG
from catchlight_cli.gallery import GalleryServer
from catchlight_cli.gallery.stack_reader import ReceivedDelivery, StatusCounts, TaskDeliveries
from tests.tasks_api_in_memory import TasksApiInMemory, a_task, an_image

CONTENT = b"\x89PNG an image"


@pytest.fixture
def api() -> TasksApiInMemory:
    image = an_image("t1", CONTENT, extension="png")
    tasks = [a_task("t1", images=[image], request={"prompt": "a tree"}), a_task("t2", TaskStatus.FAILED)]
    return TasksApiInMemory(tasks, {image.key or "": CONTENT})


@pytest.fixture
def gallery(api: TasksApiInMemory) -> Iterator[GalleryServer]:
    with GalleryServer(api.client()) as server:
        yield server


@pytest.fixture
def browser(gallery: GalleryServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gallery.url, trust_env=False) as client:
        yield client


# ------------------------------------------------------------------------------------------------ the page


def test_the_server_sends_the_page_and_all_its_files(browser: httpx.Client) -> None:
    page = browser.get("")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    parts = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert {"gallery.js", "gallery.css", "favicon.svg"} <= set(parts)
    imported = set()
    for part in parts:
        answer = browser.get(part)
        assert answer.status_code == 200, part
        imported |= set(re.findall(r'from "\./([^"]+)"', answer.text))
    assert imported <= set(parts), (
        "a module that the page does not preload is loaded only after the module that imports it"
    )


def test_the_page_may_not_load_from_other_hosts_or_run_inline_scripts(browser: httpx.Client) -> None:
    page = browser.get("")
    policy = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", page.text)
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_the_scripts_parse_no_text_as_html(browser: httpx.Client) -> None:
    for part in [*re.findall(r'href="([^"]+\.js)"', browser.get("").text), "gallery.js"]:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", browser.get(part).text
        )


# ------------------------------------------------------------------------------------------------ tasks


def test_tasks_come_from_the_tasks_api_without_links(browser: httpx.Client, api: TasksApiInMemory) -> None:
    answer = browser.get("api/tasks", params={"limit": 100})
    first, second = answer.json()["tasks"]
    assert (first["taskId"], first["request"], second["status"]) == ("t1", {"prompt": "a tree"}, "FAILED")
    assert "link" not in first["images"][0]
    assert "signatureOfALink" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


def test_filters_reach_the_tasks_api(browser: httpx.Client, api: TasksApiInMemory) -> None:
    answer = browser.get("api/tasks", params={"status": "FAILED", "since": "2026-01-01T00:00:00.000Z", "limit": "7"})
    assert [task["taskId"] for task in answer.json()["tasks"]] == ["t2"]
    assert api.requested_paths() == ["/tasks?status=FAILED&since=2026-01-01T00%3A00%3A00Z&limit=7"]


def test_one_task(browser: httpx.Client) -> None:
    assert browser.get("api/tasks/flux-kontext/t1").json()["status"] == "ARCHIVED"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("api/tasks/flux-kontext/nope", 404),
        ("api/tasks?status=LOST", 400),
        ("api/tasks?provider=dalle", 400),
        ("api/tasks?limit=100000", 400),
        ("api/tasks/flux-kontext", 404),
        ("api", 404),
        ("api/tasks//t1", 404),
        ("images//t1/result-0", 404),
        ("images/flux-kontext/t1/result-7", 404),
        ("images/flux-kontext/t1/result", 404),
        ("images/flux-kontext/t1/..%2F..%2Fx-0", 404),
        ("..%2Fserver.py", 404),
        ("../server.py", 404),
        ("%2e%2e/%2e%2e/etc/passwd", 404),
        ("static/gallery.js", 404),
        ("gallery.js/", 404),
    ],
)
def test_unknown_paths_and_invalid_parameters_are_errors(browser: httpx.Client, path: str, status: int) -> None:
    answer = browser.get(path)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] in ("application/json", "text/plain; charset=utf-8")


def test_an_error_of_the_tasks_api_is_returned(browser: httpx.Client, api: TasksApiInMemory) -> None:
    api.before = lambda _: httpx.Response(403, json={"message": "Forbidden"})
    answer = browser.get("api/tasks")
    assert answer.status_code == 502
    assert "execute-api:Invoke" in answer.json()["detail"]


def test_expired_credentials_are_reported(browser: httpx.Client, api: TasksApiInMemory) -> None:
    def expire(_: httpx.Request) -> httpx.Response:
        raise TokenRetrievalError(provider="sso", error_msg="Token has expired")

    api.before = expire
    answer = browser.get("api/tasks")
    assert answer.status_code == 502
    assert "aws sso login" in answer.json()["detail"]


# ------------------------------------------------------------------------------------------------ images


def test_an_image_has_its_content_type_and_may_be_cached(browser: httpx.Client) -> None:
    answer = browser.get("images/flux-kontext/t1/result-0")
    assert (answer.content, answer.headers["Content-Type"]) == (CONTENT, "image/png")
    assert "immutable" in answer.headers["Cache-Control"]
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'; sandbox"


def test_links_in_a_list_of_tasks_are_used_once(browser: httpx.Client, api: TasksApiInMemory) -> None:
    browser.get("api/tasks")
    for _ in range(2):
        assert browser.get("images/flux-kontext/t1/result-0").content == CONTENT
    assert api.requested_paths() == ["/tasks?limit=50", "/tasks/flux-kontext/t1/images/result-0"]


def test_an_expired_link_is_requested_again_by_the_gallery(browser: httpx.Client, api: TasksApiInMemory) -> None:
    browser.get("api/tasks")
    refusals = [httpx.Response(403)]
    api.before = lambda request: refusals.pop() if refusals and request.url.host == "storage.example" else None
    assert browser.get("images/flux-kontext/t1/result-0").content == CONTENT


@pytest.mark.parametrize("content_type", ["text/html", "image/svg+xml", "application/pdf", ""])
def test_a_file_that_is_not_an_image_is_sent_as_an_attachment(
    browser: httpx.Client, api: TasksApiInMemory, content_type: str
) -> None:
    page = httpx.Response(200, content=b"<script>alert(1)</script>", headers={"Content-Type": content_type})
    api.before = lambda request: page if request.url.host == "storage.example" else None
    answer = browser.get("images/flux-kontext/t1/result-0")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == "attachment"
    assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_an_interrupted_image_is_an_incomplete_response(browser: httpx.Client, api: TasksApiInMemory) -> None:
    class BreaksOff(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield CONTENT[:4]
            raise httpx.ReadError("connection lost")

    headers = {"Content-Type": "image/png", "Content-Length": str(len(CONTENT))}
    api.before = lambda request: (
        httpx.Response(200, stream=BreaksOff(), headers=headers) if request.url.host == "storage.example" else None
    )
    with pytest.raises(httpx.RemoteProtocolError):
        browser.get("images/flux-kontext/t1/result-0")
    api.before = lambda _: None
    assert browser.get("images/flux-kontext/t1/result-0").content == CONTENT


# ------------------------------------------------------------------------------------------------ counts and deliveries


class FakeReader:
    """Counts and deliveries of a stack."""

    def count(self, since: datetime | None) -> StatusCounts:
        return StatusCounts(counts={TaskStatus.FAILED: 1 if since else 7})

    def deliveries(self, task: TaskResponse) -> TaskDeliveries:
        delivery = ReceivedDelivery(
            key="deliveries/1.json",
            received_at=datetime(2026, 11, 28, tzinfo=UTC),
            outcome="applied",
            headers={"content-type": "application/json"},
            body=f"of {task.task_id}",
        )
        return TaskDeliveries(deliveries=(delivery,))


def test_counts_and_deliveries_come_from_the_stack(api: TasksApiInMemory) -> None:
    reader: Any = FakeReader()
    with (
        GalleryServer(api.client(), reader=reader) as server,
        httpx.Client(base_url=server.url, trust_env=False) as browser,
    ):
        assert browser.get("api/counts").json() == {"counts": {"FAILED": 7}}
        assert browser.get("api/counts?since=2026-11-28T00:00:00Z").json() == {"counts": {"FAILED": 1}}
        assert browser.get("api/counts?since=yesterday").status_code == 400
        answer = browser.get("api/tasks/flux-kontext/t1/deliveries")
        assert [each["body"] for each in answer.json()["deliveries"]] == ["of t1"]
        assert browser.get("api/tasks/flux-kontext/unknown/deliveries").status_code == 404


def test_without_a_stack_there_are_no_counts_and_deliveries(browser: httpx.Client) -> None:
    assert browser.get("api/counts").json() == {}
    assert browser.get("api/tasks/flux-kontext/t1/deliveries").json() == {"deliveries": []}


# ------------------------------------------------------------------------------------------------ access


def test_only_this_machine_can_reach_it(gallery: GalleryServer) -> None:
    assert urlsplit(gallery.url).hostname == "127.0.0.1"


@pytest.mark.parametrize(
    "path", ["/", "/gallery.js", "/api/tasks", "/wrongsecretwrongsecret/api/tasks", "//api/tasks", ""]
)
def test_requests_without_the_secret_path_are_refused(gallery: GalleryServer, api: TasksApiInMemory, path: str) -> None:
    status, _, body = raw(gallery, "GET", path or "*")
    assert status == 404
    assert b"catchlight gallery" in body
    assert api.requests == []


def test_every_gallery_has_its_own_secret_path(api: TasksApiInMemory, gallery: GalleryServer) -> None:
    with GalleryServer(api.client()) as other:
        secrets = {urlsplit(server.url).path for server in (gallery, other)}
    assert len(secrets) == 2
    assert all(len(secret) >= 22 for secret in secrets)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1.evil.example:{port}", "", None])
def test_a_request_with_another_host_header_is_refused(
    gallery: GalleryServer, api: TasksApiInMemory, host: str | None
) -> None:
    port = str(urlsplit(gallery.url).port)
    headers = {} if host is None else {"Host": host.format(port=port)}
    status, _, _ = raw(gallery, "GET", urlsplit(gallery.url).path + "api/tasks", headers)
    assert (status, api.requests) == (421, [])


def test_the_host_header_may_be_localhost(gallery: GalleryServer) -> None:
    port = urlsplit(gallery.url).port
    assert raw(gallery, "GET", urlsplit(gallery.url).path, {"Host": f"localhost:{port}"})[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_requests_of_other_pages_are_refused(browser: httpx.Client, api: TasksApiInMemory, site: str) -> None:
    for path in ("api/tasks", "images/flux-kontext/t1/result-0", "gallery.js"):
        answer = browser.get(path, headers={"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "image"})
        assert answer.status_code == 403
    assert api.requests == []
    # A link in a chat may open the page itself.
    assert browser.get("", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "document"}).status_code == 200
    assert browser.get("", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "iframe"}).status_code == 403


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
def test_other_methods_are_not_allowed(browser: httpx.Client, api: TasksApiInMemory, method: str) -> None:
    answer = browser.request(method, "api/tasks")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")
    assert api.requests == []


def test_a_body_is_not_read_as_the_next_request(gallery: GalleryServer, api: TasksApiInMemory) -> None:
    url = urlsplit(gallery.url)
    smuggled = f"GET {url.path}api/tasks HTTP/1.1\r\nHost: 127.0.0.1:{url.port}\r\n\r\n"
    refused = f"POST / HTTP/1.1\r\nContent-Length: {len(smuggled)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", url.port or 0), timeout=60) as connection:
        connection.sendall((refused + smuggled).encode())
        received = connection.makefile("rb").read()  # until the server closes the connection
    assert received.startswith(b"HTTP/1.1 421 ")
    assert (received.count(b"HTTP/1.1 "), api.requests) == (1, [])


def test_a_port_in_use_or_out_of_range_is_an_error(api: TasksApiInMemory, gallery: GalleryServer) -> None:
    with pytest.raises(CatchlightError, match="--port"):
        GalleryServer(api.client(), port=urlsplit(gallery.url).port or 0)
    with pytest.raises(CatchlightError, match="--port"):
        GalleryServer(api.client(), port=99999)


def test_stop_closes_open_connections(api: TasksApiInMemory) -> None:
    server = GalleryServer(api.client())
    server.start()
    with httpx.Client(base_url=server.url, trust_env=False) as browser:
        assert browser.get("").status_code == 200
        server.stop()
        server.stop()
        with pytest.raises(httpx.TransportError):
            browser.get("")


def test_a_request_in_progress_ends_with_the_server_without_a_message(
    api: TasksApiInMemory, capfd: pytest.CaptureFixture[str]
) -> None:
    is_requested, is_closed = threading.Event(), threading.Event()
    of_other_tests = set(threading.enumerate())

    def before(_: httpx.Request) -> None:
        is_requested.set()
        assert is_closed.wait(60)
        raise RuntimeError("Cannot send a request, as the client has been closed.")

    api.before = before
    client = api.client()
    server = GalleryServer(client)
    server.start()

    def request() -> None:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{server.url}api/tasks", trust_env=False, timeout=60)

    browser = threading.Thread(target=request)
    browser.start()
    assert is_requested.wait(60)
    threads = set(threading.enumerate()) - of_other_tests
    handlers = [thread for thread in threads if "process_request_thread" in thread.name]
    server.stop()
    client.close()
    is_closed.set()
    for thread in (browser, *handlers):
        thread.join(60)

    assert capfd.readouterr().err == ""


def raw(
    gallery: GalleryServer, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> tuple[int, Any, bytes]:
    """Sends a request with exactly these headers, and adds no Host header."""
    port = urlsplit(gallery.url).port or 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in (headers if headers is not None else {"Host": f"127.0.0.1:{port}"}).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_answers_are_json(browser: httpx.Client) -> None:
    assert json.loads(browser.get("api/tasks").content)["tasks"]


def test_the_page_waits_longer_for_an_action_than_the_server_waits_for_publish_events() -> None:
    script = files("catchlight_cli.gallery").joinpath("static/tasks.js").read_text()
    timeout = re.search(r"ACTION_TIMEOUT_MILLISECONDS = ([\d_]+);", script)

    assert timeout
    read_timeout: int = INVOKE_CONFIG.read_timeout  # type: ignore[attr-defined]
    assert int(timeout[1].replace("_", "")) > read_timeout * 1000
