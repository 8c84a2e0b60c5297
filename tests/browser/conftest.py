"""Tests the gallery in a real browser.

Every test fails on console errors and warnings, on a violated content security policy, and on any request outside the
gallery's own address.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect

from catchlight.api.response_models import TaskResponse
from catchlight.models import TaskStatus
from catchlight_cli.gallery import GalleryServer
from local.demo.chromium import TIMEOUT_MILLISECONDS, chromium, find_chromium
from tests.tasks_api_in_memory import TasksApiInMemory, many_tasks

expect.set_options(timeout=TIMEOUT_MILLISECONDS)
# Runs before the page's scripts, and records policy violations and layout shifts.
_WATCH = """
window.watched = {violations: [], shift: 0, shifts: []};
addEventListener("securitypolicyviolation", (event) =>
  watched.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    if (entry.hadRecentInput) continue;
    watched.shift += entry.value;
    watched.shifts.push(...entry.sources.map((source) =>
      `${entry.value.toFixed(4)} ${source.node?.nodeName}.${source.node?.className}`));
  }
}).observe({type: "layout-shift", buffered: true});
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, one per worker."""
    path = find_chromium()
    if path is None:
        pytest.skip("the gallery is not tested: Chromium is not installed; scripts/install-chromium installs it")
    with chromium(path) as browser:
        yield browser


@dataclass
class Visitor:
    """A browser window with a gallery; `allowed_errors` are parts of console messages that are expected."""

    gallery: GalleryServer
    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    allowed_errors: list[str] = field(default_factory=list)

    def open(self, address: str = "") -> Page:
        """Opens the page, and returns it when the first tasks are displayed."""
        self.page.goto(self.gallery.url + address)
        self.page.wait_for_selector("#grid[aria-busy=false]")
        return self.page

    @property
    def layout_shift(self) -> float:
        """The sum of all layout shifts without user input."""
        # The last paint is reported after the next frame.
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))")
        return float(self.page.evaluate("watched.shift"))

    def check(self) -> None:
        """Raises AssertionError for every problem that the browser reported."""
        for text in self.allowed_errors:
            self.problems = [problem for problem in self.problems if text not in problem]
        assert self.problems == []
        assert self.page.evaluate("window.watched?.violations ?? []") == []
        origins = {urlsplit(url)[:2] for url in self.requests}
        assert origins <= {urlsplit(self.gallery.url)[:2]}


Visit = Callable[..., Visitor]


@contextmanager
def visiting(
    browser: Browser,
    api: TasksApiInMemory,
    actions: Any = None,
    thumbnails: Any = None,
    reader: Any = None,
    **options: Any,
) -> Iterator[Visitor]:
    """Opens a browser window with a tasks API's gallery; options are those of a Playwright context.

    Without reduced motion, Chromium draws sixty frames a second as long as a task is pending.
    """
    with (
        GalleryServer(api.client(), actions=actions, thumbnails=thumbnails, reader=reader) as gallery,
        browser.new_context(**{"reduced_motion": "reduce", **options}) as context,
    ):
        context.set_default_timeout(TIMEOUT_MILLISECONDS)
        context.add_init_script(_WATCH)
        visitor = Visitor(gallery, context.new_page())

        def record(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                visitor.problems.append(f"{message.type}: {message.text} {message.location.get('url', '')}")

        visitor.page.on("console", record)
        visitor.page.on("pageerror", lambda error: visitor.problems.append(f"error: {error}"))
        context.on("request", lambda request: visitor.requests.append(request.url))
        yield visitor
        visitor.check()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens browser windows; any problem that a browser reports fails the test at its end."""
    with ExitStack() as visits:
        yield lambda api, **options: visits.enter_context(visiting(browser, api, **options))


@pytest.fixture(scope="module")
def api() -> TasksApiInMemory:
    """Sixty tasks of all kinds, for tests that do not change them."""
    return TasksApiInMemory(*many_tasks(60, now=datetime.now(UTC)))


def load_all(page: Page, count: str) -> None:
    """Scrolls down until the page has loaded this number of tasks, and up again."""
    page.wait_for_selector("#grid[aria-busy=false]")
    # On a busy machine a page of tasks may be requested later than the next scroll.
    deadline = time.monotonic() + 300
    while page.locator("#count").inner_text() != count and time.monotonic() < deadline:
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        page.wait_for_timeout(50)
        page.wait_for_selector("#grid[aria-busy=false]")
    expect(page.locator("#count")).to_have_text(count)
    page.evaluate("scrollTo(0, 0)")


def pixels(page: Page, locator: Locator) -> bytes:
    """Returns a screenshot of an element's area, with everything that is drawn above or below it."""
    found = locator.bounding_box()
    assert found is not None
    return page.screenshot(clip=found, animations="disabled")


def newest_with(api: TasksApiInMemory, images: int) -> TaskResponse:
    """Returns the newest archived task with this many images."""
    return next(
        task for task in api.tasks.values() if task.status is TaskStatus.ARCHIVED and len(task.images) == images
    )


def focused(page: Page) -> str:
    """Returns the focused element."""
    return str(page.evaluate("document.activeElement.getAttribute('href') ?? document.activeElement.id"))
