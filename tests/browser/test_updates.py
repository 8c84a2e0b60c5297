"""Automatic updates: tasks change in place; new tasks are not inserted while the user points at one or has scrolled."""

import threading
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
from playwright.sync_api import Page, Route, expect

from catchlight.api.response_models import ImageResponse, TaskResponse
from catchlight.models import TaskStatus
from catchlight_cli.gallery import GalleryServer
from local.demo.chromium import TIMEOUT_MILLISECONDS
from tests.browser.conftest import Visit
from tests.tasks_api_in_memory import TasksApiInMemory, a_lost_image, a_task, an_image, many_tasks

# Chromium's messages if the server stops before a request, before its response, or within an image.
STOPPED = ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_CONTENT_LENGTH_MISMATCH"]


def an_api(count: int = 60) -> TasksApiInMemory:
    """An API with two pending tasks, so that the page polls every two seconds."""
    return TasksApiInMemory(*many_tasks(count, now=datetime.now(UTC)))


def add_new(api: TasksApiInMemory, task_id: str) -> TaskResponse:
    task = a_task(task_id, TaskStatus.PENDING, arrived_at=datetime.now(UTC))
    api.put(task)
    return task


def archive(api: TasksApiInMemory, task: TaskResponse) -> None:
    content = next(iter(api.pictures.values()))
    image = an_image(task.task_id, content, extension="webp", width=512, height=512)
    api.pictures[image.key or ""] = content
    arrived_at = datetime.fromisoformat(task.arrived_at or "")
    api.put(a_task(task.task_id, provider=task.provider, arrived_at=arrived_at, images=[image]))


def test_a_pending_task_is_updated_until_its_image_is_shown(visit: Visit) -> None:
    api = an_api()
    task = next(iter(api.tasks.values()))
    visitor = visit(api, reduced_motion="no-preference")
    page = visitor.open()
    card = page.locator(".card").first
    expect(card).to_have_attribute("data-status", "PENDING")
    before = card.locator(".source").inner_text()
    expect(card.locator(".source")).not_to_have_text(before)  # the elapsed seconds
    archive(api, task)
    expect(card).to_have_attribute("data-status", "ARCHIVED")
    expect(card.locator("img.is-loaded")).to_be_visible()
    assert visitor.layout_shift < 0.001, page.evaluate("watched.shifts")


def test_labels_on_an_image_are_updated_with_its_task(visit: Visit) -> None:
    api = an_api()
    task = next(iter(api.tasks.values()))
    content = next(iter(api.pictures.values()))
    images = [
        an_image(task.task_id, content, provider=task.provider, index=index, extension="webp") for index in (0, 1)
    ]
    api.pictures |= {image.key or "": content for image in images}
    arrived_at = datetime.fromisoformat(task.arrived_at or "")

    def put(status: TaskStatus, *known: ImageResponse) -> None:
        api.put(a_task(task.task_id, status, provider=task.provider, arrived_at=arrived_at, images=known))

    lost = a_lost_image(task.task_id, kind="result", index=1)
    put(TaskStatus.INCOMPLETE, images[0], lost)
    page = visit(api).open()
    card = page.locator(".card").first
    expect(card.locator(".ringed")).to_be_visible()
    expect(card).to_contain_text("1 of 2")
    put(TaskStatus.ARCHIVED, *images)
    expect(card.locator(".count-badge")).to_have_text("2")
    expect(card.locator(".ringed")).to_have_count(0)
    expect(card.locator("img.is-loaded")).to_be_visible()
    put(TaskStatus.INCOMPLETE, images[0], lost)
    expect(card.locator(".ringed")).to_be_visible()
    expect(card.locator(".count-badge")).to_have_count(0)


def test_many_new_tasks_at_once_leave_no_gap_in_the_list(visit: Visit) -> None:
    """This happens in a tab that was hidden for hours."""
    api = an_api()
    visitor = visit(api)

    def reduce_page_limits(route: Route) -> None:
        script = route.fetch()
        small = script.text().replace("MAX_PAGES_PER_REFRESH = 20", "MAX_PAGES_PER_REFRESH = 2")
        assert small != script.text()
        route.fulfill(response=script, body=small.replace("INITIAL_TASKS = 1000", "INITIAL_TASKS = 100"))

    visitor.page.route("**/tasks.js", reduce_page_limits)
    page = visitor.open()
    expect(page.locator("#count")).to_have_text("60 tasks")
    now = datetime.now(UTC)
    api.put(*(a_task(f"new{n}", TaskStatus.FAILED, arrived_at=now - timedelta(milliseconds=n)) for n in range(250)))
    expect(page.locator("#count")).to_have_text("The latest 200 tasks")
    # An automatic update may read the last tasks and hide the button, so the page checks and clicks in one step.
    deadline = time.monotonic() + TIMEOUT_MILLISECONDS / 1000
    while page.locator("#count").inner_text() != "310 tasks" and time.monotonic() < deadline:
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")  # which also loads older tasks
        page.locator("#older").evaluate("(button) => button.checkVisibility() && button.click()")
        page.wait_for_timeout(100)
    expect(page.locator("#count")).to_have_text("310 tasks", timeout=1)


def test_an_older_pending_task_is_updated(visit: Visit) -> None:
    api = an_api()
    old = a_task("old", TaskStatus.PENDING, arrived_at=datetime.now(UTC) - timedelta(days=2))
    api.put(old)
    page = visit(api).open()
    card = page.locator(".card").last
    expect(card.locator(".id")).to_have_text("old")
    archive(api, old)
    expect(card).to_have_attribute("data-status", "ARCHIVED")


def test_new_tasks_are_inserted_at_the_top(visit: Visit) -> None:
    api = an_api()
    page = visit(api).open()
    page.mouse.move(5, 5)
    add_new(api, "new1")
    expect(page.locator(".card").first.locator(".id")).to_have_text("new1")
    expect(page.locator(".card")).to_have_count(61)


def test_new_tasks_are_not_inserted_while_the_page_is_scrolled_down(visit: Visit) -> None:
    api = an_api()
    visitor = visit(api, viewport={"width": 1200, "height": 700}, reduced_motion="no-preference")
    page = visitor.open()
    page.mouse.wheel(0, 900)
    expect(page.locator(".card").first).not_to_be_in_viewport()
    page.wait_for_timeout(700)  # shifts within 500 ms after an input are not counted
    add_new(api, "new1")
    add_new(api, "new2")
    new_tasks = page.get_by_role("button", name="2 new tasks")
    expect(new_tasks).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("2 new tasks")
    expect(page.locator(".card")).to_have_count(60)
    assert visitor.layout_shift < 0.001, page.evaluate("watched.shifts")
    new_tasks.click()
    expect(page.locator(".card")).to_have_count(62)
    expect(page.locator(".card").first).to_be_in_viewport()
    expect(new_tasks).to_be_hidden()


def test_new_tasks_are_not_inserted_while_the_pointer_is_over_a_task(visit: Visit) -> None:
    api = an_api()
    page = visit(api).open()
    page.locator(".card").nth(3).hover()
    add_new(api, "new1")
    expect(page.get_by_role("button", name="1 new task")).to_be_visible()
    expect(page.locator(".card")).to_have_count(60)


def test_long_pending_tasks_are_requested_rarely(visit: Visit) -> None:
    arrived_at = datetime.now(UTC) - timedelta(hours=2)
    pending = [a_task(f"w{number}", TaskStatus.PENDING, arrived_at=arrived_at) for number in range(30)]
    api = TasksApiInMemory([a_task("newest", arrived_at=arrived_at + timedelta(hours=1)), *pending])
    page = open_with_clock(visit, api)
    before = len(api.requested_paths())
    pass_time(page, seconds=12)
    assert len(api.requested_paths()) - before <= 10  # one page and some of the tasks, once or twice


def test_the_task_dialog_is_updated(visit: Visit) -> None:
    api = an_api()
    task = next(iter(api.tasks.values()))
    page = visit(api).open(f"#{task.provider}/{task.task_id}")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Pending")
    archive(api, task)
    expect(dialog).to_contain_text("Every image is in the bucket")
    expect(page.locator(".main-image img")).to_be_visible()


def test_keyboard_shortcuts_work_after_the_focused_element_was_removed(visit: Visit) -> None:
    api = an_api(8)
    newest = next(iter(api.tasks.values()))
    page = visit(api).open(f"#{newest.provider}/{newest.task_id}")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Copy the task id").focus()
    archive(api, newest)
    expect(dialog).to_contain_text("Every image is in the bucket")
    page.keyboard.press("ArrowRight")
    expect(dialog.locator(".title-id")).not_to_have_text(newest.task_id)
    dialog.get_by_role("button", name="Newer task").click()
    expect(dialog.locator(".title-id")).to_have_text(newest.task_id)  # there is no newer one: the button is disabled
    page.wait_for_timeout(300)
    page.keyboard.press("ArrowRight")
    expect(dialog.locator(".title-id")).not_to_have_text(newest.task_id)


def open_with_clock(visit: Visit, api: TasksApiInMemory) -> Page:
    """Opens the page with a clock that `pass_time` advances."""
    visitor = visit(api)
    visitor.page.clock.install()
    return visitor.open()


def pass_time(page: Page, *, seconds: int) -> None:
    """Advances the page's clock in steps of a second, with a pause after each for the responses."""
    for _ in range(seconds):
        page.clock.run_for(1000)
        page.wait_for_timeout(100)


def settled_request_count(page: Page, api: TasksApiInMemory) -> int:
    """Returns the number of requests after pending requests have ended."""
    count = -1
    while count != len(api.requested_paths()):
        count = len(api.requested_paths())
        page.wait_for_timeout(1000)
    return count


def test_a_hidden_page_sends_no_requests(visit: Visit) -> None:
    api = an_api()
    page = open_with_clock(visit, api)
    page.evaluate(
        """() => {
          Object.defineProperty(document, "hidden", {configurable: true, get: () => true});
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    request_count = settled_request_count(page, api)
    pass_time(page, seconds=10)
    assert len(api.requested_paths()) == request_count
    add_new(api, "new1")
    page.evaluate("() => { delete document.hidden; document.dispatchEvent(new Event('visibilitychange')); }")
    expect(page.locator(".id:text-is('new1')")).to_be_visible()


def test_updates_can_be_paused(visit: Visit) -> None:
    api = an_api()
    page = open_with_clock(visit, api)
    live = page.locator("#live")
    expect(live).to_have_attribute("aria-pressed", "true")
    live.click()
    expect(live).to_have_attribute("aria-pressed", "false")
    expect(live).to_have_text("Paused")
    request_count = settled_request_count(page, api)
    pass_time(page, seconds=10)
    assert len(api.requested_paths()) == request_count
    with page.expect_response("**/api/tasks*"):
        live.click()
    expect(live).to_have_text("Live")


def test_a_late_response_does_not_end_the_pause(visit: Visit) -> None:
    api = an_api()
    page = visit(api).open()
    may_respond = threading.Event()

    def wait(_: httpx.Request) -> None:
        may_respond.wait(TIMEOUT_MILLISECONDS / 1000)

    api.before = wait
    with page.expect_request("**/api/tasks*"):
        pass
    page.locator("#live").click()
    with page.expect_response("**/api/tasks*"):
        may_respond.set()
    settled_request_count(page, api)
    expect(page.locator("#live")).to_have_text("Paused")


def test_loading_continues_after_a_failed_request(visit: Visit) -> None:
    api = an_api(230)
    visitor = visit(api)
    visitor.allowed_errors.append("502")
    second_page = httpx.Response(403, json={"message": "Forbidden"})
    api.before = lambda request: second_page if "cursor" in request.url.params else None
    page = visitor.open()
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    expect(page.locator("#live")).to_have_text("Retrying")
    expect(page.locator(".card")).to_have_count(100)
    api.before = lambda _: None
    expect(page.locator(".card")).to_have_count(200)  # loading continues after the last page
    expect(page.locator("#live")).to_have_text("Live")


def test_the_text_for_an_empty_table_is_shown_only_after_a_successful_response(visit: Visit) -> None:
    api = TasksApiInMemory()
    visitor = visit(api)
    visitor.allowed_errors.append("502")
    api.before = lambda _: httpx.Response(403, json={"message": "Forbidden"})
    page = visitor.open()
    expect(page.locator("#error")).to_be_visible()
    expect(page.get_by_text("No tasks yet.")).to_have_count(0)
    expect(page.get_by_role("status")).to_contain_text("execute-api:Invoke")
    api.before = lambda _: None
    expect(page.locator("#empty")).to_contain_text("No tasks yet.")
    expect(page.locator("#error")).to_be_hidden()


def test_an_error_is_shown_until_a_request_succeeds(visit: Visit) -> None:
    api = an_api()
    visitor = visit(api)
    visitor.allowed_errors.append("502")
    page = visitor.open()
    api.before = lambda _: httpx.Response(403, json={"message": "Forbidden"})
    error = page.locator("#error")
    expect(error).to_contain_text("execute-api:Invoke")
    expect(page.locator("#live")).to_have_text("Retrying")
    expect(page.locator(".card")).to_have_count(60)  # loaded tasks stay
    api.before = lambda _: None
    expect(error).to_be_hidden()
    expect(page.locator("#live")).to_have_text("Live")


def test_an_error_is_shown_in_the_task_dialog(visit: Visit) -> None:
    api = an_api()
    visitor = visit(api)
    visitor.allowed_errors.append("502")
    task = next(iter(api.tasks.values()))
    page = visitor.open(f"#{task.provider}/{task.task_id}")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    api.before = lambda _: httpx.Response(403, json={"message": "Forbidden"})
    error = dialog.locator(".error")
    expect(error).to_contain_text("execute-api:Invoke")
    expect(error).to_be_in_viewport(ratio=1)
    expect(dialog.locator("#dialog-announcements")).to_contain_text("execute-api:Invoke")
    api.before = lambda _: None
    expect(error).to_be_hidden()


def test_a_stopped_server_is_reported(visit: Visit) -> None:
    visitor = visit(an_api())
    visitor.allowed_errors += STOPPED
    page = visitor.open()
    visitor.gallery.stop()
    expect(page.locator("#error")).to_contain_text("Is `catchlight gallery` still running?")


def test_a_restarted_server_is_reported(visit: Visit) -> None:
    api = an_api()
    visitor = visit(api)
    visitor.allowed_errors += [*STOPPED, "404"]
    page = visitor.open()
    visitor.gallery.stop()
    with GalleryServer(api.client(), port=urlsplit(visitor.gallery.url).port or 0):  # its URL has a new secret
        expect(page.locator("#error")).to_contain_text("Open the URL that the command printed last")


def test_an_empty_table_shows_how_to_submit_a_task(visit: Visit) -> None:
    page = visit(TasksApiInMemory()).open()
    expect(page.get_by_text("No tasks yet.")).to_be_visible()
    expect(page.get_by_text("catchlight submit --help")).to_be_visible()
