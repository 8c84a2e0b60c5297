"""A thousand tasks on one page: displayed quickly, without layout shifts, with images loaded only near the viewport.

Elements that appear later are awaited by `wait_for`: `expect` describes the whole page each time that it does not find
the element, which takes seconds with a thousand cards.
"""

import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from catchlight.api.response_models import TaskResponse
from catchlight.models import FailureReason, TaskStatus
from catchlight_cli.gallery.thumbnails import Thumbnails
from local.demo.chromium import wait_until
from tests.browser.conftest import Visit, load_all, pixels
from tests.tasks_api_in_memory import TasksApiInMemory, a_task, many_tasks


@pytest.fixture(scope="module")
def api() -> TasksApiInMemory:
    return TasksApiInMemory(*many_tasks(1000, now=datetime.now(UTC)))


def test_a_thousand_tasks_are_displayed_without_layout_shifts_and_only_images_near_the_viewport_are_loaded(
    visit: Visit, api: TasksApiInMemory
) -> None:
    visitor = visit(api, viewport={"width": 1440, "height": 900}, reduced_motion="no-preference")
    started_at = time.monotonic()
    page = visitor.open()
    seconds = time.monotonic() - started_at
    assert page.locator(".card").count() == 100
    expect(page.locator("#count")).to_have_text("The latest 100 tasks")
    page.locator(".picture img.is-loaded").nth(5).wait_for()
    page.wait_for_load_state("networkidle")
    assert len([url for url in visitor.requests if "/thumbnails/" in url]) < 150
    load_all(page, "1,000 tasks")
    for _ in range(6):
        page.mouse.wheel(0, 700)
        page.wait_for_timeout(150)
    last = page.locator(".card").last
    last.scroll_into_view_if_needed()
    expect(last.locator(".caption")).to_be_in_viewport()
    page.locator(".card:nth-last-child(-n + 24) img.is-loaded").first.wait_for()
    shift = visitor.layout_shift
    sys.stdout.write(f"\nThe first of 1,000 tasks are on the page after {seconds:.2f} s; layout shift {shift:.5f}\n")
    assert shift < 0.001, page.evaluate("watched.shifts")


def test_a_status_filter_shows_only_that_status(visit: Visit, api: TasksApiInMemory) -> None:
    page = visit(api).open()
    for status in ("FAILED", "PENDING", "INCOMPLETE", "ARCHIVED"):
        page.locator(f".statuses [data-status={status}]").click()
        expected = sum(task.status == status for task in api.tasks.values())
        load_all(page, f"{expected} tasks")
        expect(page.locator(".card")).to_have_count(expected)
        assert set(page.eval_on_selector_all(".card", "(all) => all.map((one) => one.dataset.status)")) == {status}
        assert f"status={status}" in page.url
        page.reload()
        load_all(page, f"{expected} tasks")
    page.get_by_role("radio", name="All").check(force=True)
    load_all(page, "1,000 tasks")


def test_tasks_are_filtered_by_time_and_reason(visit: Visit) -> None:
    now = datetime.now(UTC)

    def failed(task_id: str, hours: float, reason: str) -> TaskResponse:
        failure = {"reason": reason, "message": "no"}
        return a_task(task_id, TaskStatus.FAILED, arrived_at=now - timedelta(hours=hours), failure=failure)

    tasks = [failed("one", 0.2, "INTERNAL"), failed("two", 0.5, "CONTENT_POLICY"), failed("three", 5, "INTERNAL")]
    page = visit(TasksApiInMemory(tasks)).open()
    ids = page.locator(".card .id")
    expect(ids).to_have_text(["one", "two", "three"])
    page.get_by_role("combobox", name="Time").select_option("Last hour")
    expect(ids).to_have_text(["one", "two"])
    page.get_by_role("combobox", name="Reason").select_option("Internal error")
    expect(ids).to_have_text(["one"])
    assert "hours=1&reason=INTERNAL" in page.url
    page.reload()
    expect(ids).to_have_text(["one"])
    expect(page.get_by_role("combobox", name="Reason")).to_have_value("INTERNAL")
    page.get_by_role("combobox", name="Time").select_option("Any time")
    expect(ids).to_have_text(["one", "three"])


def test_a_reason_filter_finds_tasks_beyond_the_loaded_pages(visit: Visit) -> None:
    now = datetime.now(UTC)
    tasks = [a_task(f"new{number:03}", arrived_at=now - timedelta(seconds=number)) for number in range(600)]
    policy = {"reason": "CONTENT_POLICY", "message": "no"}
    tasks += [a_task("old", TaskStatus.FAILED, arrived_at=now - timedelta(hours=1), failure=policy)]
    tasks += [a_task("new", TaskStatus.FAILED, arrived_at=now, failure=policy | {"reason": "INTERNAL"})]
    page = visit(TasksApiInMemory(tasks)).open()
    reason = page.get_by_role("combobox", name="Reason")
    values = reason.locator("option").evaluate_all("(options) => options.map((option) => option.value)")
    assert set(values) == {"", *FailureReason}

    reason.select_option("Content policy")

    expect(page.locator(".card .id")).to_have_text(["old"])


def test_a_provider_filter_shows_only_that_provider(visit: Visit, api: TasksApiInMemory) -> None:
    page = visit(api).open()
    page.get_by_role("combobox", name="Provider").select_option("acedata")
    expected = sum(task.provider == "acedata" for task in api.tasks.values())
    load_all(page, f"{expected} tasks")
    expect(page.locator(".card")).to_have_count(expected)
    assert page.locator(".card:not(:has(.provider:text-is('acedata')))").count() == 0


def test_the_search_finds_ids_and_prompts(visit: Visit, api: TasksApiInMemory) -> None:
    page = visit(api).open()
    search = page.get_by_role("searchbox", name="Search by task id or prompt")
    task = list(api.tasks.values())[500]
    search.fill(task.task_id[2:].upper())
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator(".card .id")).to_have_text(task.task_id)
    expect(page.get_by_role("status")).to_have_text("1 task shown")
    search.fill("COPPER sea")
    expected = sum("copper sea" in str(task.request) for task in api.tasks.values())
    load_all(page, f"{expected} tasks")
    search.fill("no such words anywhere")
    page.get_by_text("No task matches.").wait_for()
    page.get_by_role("button", name="Show all tasks").click()
    expect(page.locator(".card")).to_have_count(1000)
    assert search.input_value() == ""


def check_that_the_count_is_not_covered(page: Page) -> None:
    """Checks that the filters do not overlap the number of tasks, in windows of each layout of the toolbar."""
    size = page.viewport_size
    assert size is not None
    count, others = page.locator("#count"), page.locator(".statuses, .provider, .search, .live")
    for width in (761, 768, 900, 1100, 1101, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        before = pixels(page, count)
        others.evaluate_all("(all) => all.forEach((each) => (each.style.visibility = 'hidden'))")
        assert pixels(page, count) == before, width
        others.evaluate_all("(all) => all.forEach((each) => (each.style.visibility = ''))")
    page.set_viewport_size(size)


def test_older_tasks_are_loaded_on_request_and_the_filters_do_not_overlap_the_count(visit: Visit) -> None:
    tasks, _ = many_tasks(1130, now=datetime.now(UTC))
    api = TasksApiInMemory(tasks)
    visitor = visit(api)
    visitor.allowed_errors.append("502")  # for images that this tasks API does not have
    page = visitor.open()
    older = page.get_by_role("button", name="Older tasks")
    expect(older).to_be_hidden()  # scrolling loads the first thousand
    load_all(page, "The latest 1,000 tasks")  # the longest text
    check_that_the_count_is_not_covered(page)
    page.get_by_role("searchbox").fill("no such words anywhere")
    page.get_by_text("None of the latest 1,000 tasks matches.").wait_for()
    page.get_by_role("searchbox").fill("")
    older.click()
    expect(page.locator("#count")).to_have_text("The latest 1,100 tasks")
    older.click()
    expect(page.locator("#count")).to_have_text("1,130 tasks")
    expect(older).to_be_hidden()


def test_concurrent_requests_for_the_same_page_are_counted_once(visit: Visit, api: TasksApiInMemory) -> None:
    """Scrolling while a refresh continues an interrupted load requests the same page twice."""
    page = visit(api).open()
    loaded = page.evaluate(
        """async () => {
          const { Tasks } = await import(new URL("tasks.js", document.querySelector("script[src]").src));
          const tasks = new Tasks();
          const filter = { status: "", provider: "", text: "" };
          const load = () => tasks.load(filter, new AbortController().signal, () => true);
          await Promise.all([load(), load(), tasks.loadOlder(filter)]);
          return [tasks.select(filter).length, tasks.searchedCount(filter)];
        }"""
    )
    assert loaded == [1000, 1000]


def test_a_task_that_is_not_loaded_is_found_by_its_id(visit: Visit) -> None:
    tasks, _ = many_tasks(1200, now=datetime.now(UTC))
    visitor = visit(TasksApiInMemory(tasks))
    visitor.allowed_errors += ["502", "404"]  # images are missing, and most providers do not have the task
    page = visitor.open()
    task = next(task for task in reversed(tasks) if task.status is TaskStatus.FAILED)
    page.keyboard.press("/")
    page.keyboard.type(task.task_id)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text(task.task_id)


def test_stored_thumbnails_are_loaded_without_downloading_the_images(
    visit: Visit, api: TasksApiInMemory, tmp_path: Path
) -> None:
    """Images of 2K and 4K have 5 to 25 MB. Existing thumbnails are read from the disk."""
    api = TasksApiInMemory(list(api.tasks.values()), api.pictures)  # without the requests of other tests
    thumbnails = Thumbnails(tmp_path)
    for content in set(api.pictures.values()):
        assert thumbnails.make(content)
    visitor = visit(api, thumbnails=thumbnails, viewport={"width": 1440, "height": 900}, reduced_motion="no-preference")
    received: list[int] = []
    visitor.page.on("response", lambda response: received.append(int(response.headers.get("content-length", 0))))
    started_at = time.monotonic()
    page = visitor.open()
    wait_until(
        page,
        """[...document.querySelectorAll(".picture img")]
          .filter((image) => image.getBoundingClientRect().top < innerHeight)
          .every((image) => image.classList.contains("is-loaded"))""",
    )
    seconds = time.monotonic() - started_at
    assert api.requested_paths(host="storage.example") == []
    load_all(page, "1,000 tasks")
    page.wait_for_load_state("networkidle")
    sys.stdout.write(f"\nvisible thumbnails after {seconds:.2f} s; 1,000 tasks: {sum(received) / 1e6:.2f} MB\n")
    assert sum(received) < 3_000_000
    assert visitor.layout_shift < 0.001, page.evaluate("watched.shifts")


def test_malformed_items_are_listed(visit: Visit) -> None:
    tasks, pictures = many_tasks(3, now=datetime.now(UTC))
    api = TasksApiInMemory(tasks, pictures)
    api.unreadable = {"flux-kontext#edited": "images", "by-hand": "task"}
    page = visit(api).open()
    expect(page.locator("#unreadable")).to_have_text(
        "2 items of the table cannot be read: flux-kontext/edited (images), by-hand (task). Correct them in the table."
    )
