"""The task dialog: images, history, address."""

import re
from datetime import UTC, datetime, timedelta

import httpx
from playwright.sync_api import Page, Route, expect

from catchlight.api.response_models import QuarantineResponse
from catchlight.client.downloading import file_name
from catchlight.models import TaskStatus, iso
from tests.browser.conftest import Visit, focused, newest_with
from tests.tasks_api_in_memory import TasksApiInMemory, a_lost_image, a_task, many_tasks


def shown_image(page: Page) -> tuple[int, str]:
    image = page.locator(".main-image img")
    expect(image).to_be_visible()
    page.wait_for_load_state("networkidle")
    return image.evaluate("(image) => image.decode().then(() => image.naturalWidth)"), image.get_attribute("src") or ""


def test_clicking_a_task_opens_its_dialog_with_metadata_and_history(visit: Visit, api: TasksApiInMemory) -> None:
    task = newest_with(api, 2)
    result, origin = task.images
    page = visit(api).open()
    page.get_by_role("link", name=task.task_id).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert page.url.endswith(f"#flux-kontext/{task.task_id}")
    width, source = shown_image(page)
    assert (width, source.endswith("result-0")) == (result.width, True)
    for text in (
        str((task.request or {})["prompt"]),
        f"{result.width} \N{MULTIPLICATION SIGN} {result.height}",
        result.key,
        result.sha256,
        "Registered",
        "Result by callback" if task.reported_by == "callback" else "Result found by polling",
        "All images archived",
    ):
        expect(dialog).to_contain_text(text or "")
    page.get_by_role("button", name="origin-0").click()
    expect(page.locator(".main-image img")).to_have_attribute("src", f"images/flux-kontext/{task.task_id}/origin-0")
    assert shown_image(page)[0] == origin.width
    expect(page.get_by_role("button", name="origin-0")).to_have_attribute("aria-pressed", "true")


def test_a_tasks_address_opens_its_dialog_and_back_closes_it(visit: Visit, api: TasksApiInMemory) -> None:
    task = list(api.tasks.values())[40]
    visitor = visit(api)
    page = visitor.open()
    page.goto(f"{visitor.gallery.url}#{task.provider}/{task.task_id}")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(task.task_id)
    page.go_back()
    expect(dialog).to_be_hidden()
    page.go_forward()
    expect(dialog).to_contain_text(task.task_id)
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    assert page.evaluate("location.hash") == ""


def test_closed_dialogs_are_not_in_the_browser_history(visit: Visit, api: TasksApiInMemory) -> None:
    visitor = visit(api)
    page = visitor.page
    page.goto("about:blank")
    visitor.open()
    dialog = page.get_by_role("dialog")
    steps = page.evaluate("history.length")
    for number in range(3):
        page.locator(".card a").nth(number).click()
        expect(dialog).to_be_visible()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(page).not_to_have_url(re.compile("#."))
        assert focused(page) == page.locator(".card a").nth(number + 1).get_attribute("href")
    assert page.evaluate("history.length") <= steps + 1  # the last dialog is a forward entry
    page.go_forward()
    expect(dialog).to_be_visible()
    page.reload()
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    expect(page).not_to_have_url(re.compile("#."))
    assert page.url.startswith(visitor.gallery.url)


def test_a_late_response_does_not_reopen_a_closed_dialog(visit: Visit, api: TasksApiInMemory) -> None:
    page = visit(api).open()
    held: list[Route] = []
    page.route("**/api/tasks/*/*", lambda route: held.append(route))
    # `history.back` is asynchronous; here it takes long enough for a response to arrive in between.
    page.evaluate("() => { history.back = () => setTimeout(() => history.go(-1), 1000) }")
    dialog = page.get_by_role("dialog")
    page.locator(".card a").nth(2).click()
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    with page.expect_response("**/api/tasks/*/*"):
        held[0].continue_()
    page.wait_for_timeout(200)
    assert not dialog.is_visible()
    expect(page).not_to_have_url(re.compile("#."))
    assert focused(page) == page.locator(".card a").nth(2).get_attribute("href")


def test_a_dialog_reopens_if_its_address_returns_before_the_close_event(visit: Visit, api: TasksApiInMemory) -> None:
    task = next(iter(api.tasks.values()))
    page = visit(api).open(f"#{task.provider}/{task.task_id}")
    expect(page.get_by_role("dialog")).to_contain_text(task.task_id)
    address = page.evaluate("location.hash")
    # The address changes within the task that closes the dialog: its `close` event comes after.
    page.evaluate(
        """(address) => {
          history.replaceState(null, "", location.pathname);
          dispatchEvent(new HashChangeEvent("hashchange"));
          history.replaceState(null, "", address);
        }""",
        address,
    )
    page.evaluate("dispatchEvent(new HashChangeEvent('hashchange'))")
    expect(page.get_by_role("dialog")).to_contain_text(task.task_id)
    assert page.evaluate("location.hash") == address


def test_an_address_of_an_unknown_task_shows_an_error(visit: Visit, api: TasksApiInMemory) -> None:
    visitor = visit(api)
    visitor.allowed_errors.append("404")
    page = visitor.open("#flux-kontext/nope")
    expect(page.locator("#error")).to_have_text("There is no task nope of flux-kontext.")
    expect(page.locator("#error")).to_be_visible()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_an_image_can_be_opened_in_a_new_tab(visit: Visit, api: TasksApiInMemory) -> None:
    visitor = visit(api)
    task = newest_with(api, 1)
    page = visitor.open(f"#{task.provider}/{task.task_id}")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Open result-0 in a new tab").click()
    original = opened.value
    original.wait_for_load_state()
    assert original.url == f"{visitor.gallery.url}images/{task.provider}/{task.task_id}/result-0"
    assert original.evaluate("document.images[0].naturalWidth") == task.images[0].width


def test_a_saved_image_has_the_command_lines_file_name(visit: Visit, api: TasksApiInMemory) -> None:
    task = newest_with(api, 1)
    page = visit(api).open(f"#{task.provider}/{task.task_id}")
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save result-0").click()
    assert saved.value.suggested_filename == file_name(task, task.images[0])
    assert saved.value.path().read_bytes() == api.pictures[task.images[0].key or ""]


def test_the_prompt_and_the_key_can_be_copied(visit: Visit) -> None:
    task = a_task("t1", request={"prompt": "a small sail,\nlow sun"}, idempotency_key="order-1")
    page = visit(TasksApiInMemory([task]), permissions=["clipboard-read", "clipboard-write"]).open("#flux-kontext/t1")
    for name, text in (("prompt", "a small sail,\nlow sun"), ("idempotency key", "order-1")):
        button = page.get_by_role("button", name=f"Copy the {name}")
        button.click()
        expect(button).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == text


def test_an_image_that_fails_to_load_is_reported(visit: Visit) -> None:
    tasks, _ = many_tasks(8, now=datetime.now(UTC))
    visitor = visit(TasksApiInMemory(tasks))
    visitor.allowed_errors.append("502")
    page = visitor.open()
    task = next(task for task in tasks if task.status is TaskStatus.ARCHIVED)
    link = page.get_by_role("link", name=task.task_id)
    expect(link).to_contain_text("cannot be shown")
    link.click()
    expect(page.get_by_role("dialog")).to_contain_text("This image cannot be shown.")


def test_an_image_is_loaded_again_after_a_failure(visit: Visit) -> None:
    api = TasksApiInMemory(*many_tasks(8, now=datetime.now(UTC)))
    visitor = visit(api)
    visitor.allowed_errors.append("502")
    api.before = lambda request: httpx.Response(403) if request.url.host == "storage.example" else None
    page = visitor.open()
    link = page.get_by_role("link", name=newest_with(api, 1).task_id)
    expect(link).to_contain_text("cannot be shown")
    api.before = lambda _: None
    expect(link.locator("img.is-loaded")).to_be_visible()
    expect(link).not_to_contain_text("cannot be shown")


def test_failures_and_conflicts_are_shown(visit: Visit) -> None:
    at = datetime.now(UTC) - timedelta(minutes=3)
    conflict = {
        "reportedBy": "callback",
        "reportedAt": iso(at + timedelta(seconds=30)),
        "status": "SUCCEEDED",
        "urls": ["https://169.254.169.254/x.jpg"],
    }
    failure = {"reason": "CONTENT_POLICY", "code": "400", "message": "Your prompt was flagged"}
    failed = a_task("t1", TaskStatus.FAILED, arrived_at=at, failure=failure, conflicts=[conflict], deliveries=3)
    unregistered = a_task("t2", TaskStatus.FAILED, arrived_at=at, failure=failure, registered_at=None)
    incomplete = a_task("t3", TaskStatus.INCOMPLETE, arrived_at=at, images=[a_lost_image("t3")])
    page = visit(TasksApiInMemory([failed, unregistered, incomplete])).open("#flux-kontext/t1")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Content policy (400): Your prompt was flagged")
    expect(dialog).to_contain_text("Failure by callback, delivered 3 times")
    expect(dialog).to_contain_text("A callback reported SUCCEEDED: not applied")
    expect(dialog).to_contain_text("https://169.254.169.254/x.jpg")
    assert dialog.get_by_role("link").count() == 0  # URLs of rejected reports are not links
    page.keyboard.press("Escape")
    page.get_by_role("link", name="t2").click()
    expect(dialog).to_contain_text("Not registered")
    page.keyboard.press("Escape")
    page.get_by_role("link", name="t3").click()
    expect(dialog).to_contain_text("its URL had expired: HTTP 404 on every try")


def test_quarantined_bytes_are_listed_and_not_displayed(visit: Visit) -> None:
    quarantine = QuarantineResponse(key="quarantine/flux-kontext/t9/result-0", bytes=4112, sha256="0" * 64)
    rejected = a_lost_image("t9", kind="result", state="REJECTED").model_copy(update={"quarantine": quarantine})
    api = TasksApiInMemory([a_task("t9", TaskStatus.INCOMPLETE, images=[rejected])])
    visitor = visit(api)
    page = visitor.open()
    page.goto(f"{visitor.gallery.url}#flux-kontext/t9")

    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("quarantine/flux-kontext/t9/result-0")
    expect(dialog).to_contain_text("4 kB")
    expect(dialog.locator("img")).to_have_count(0)
    expect(dialog.locator("a[href*=quarantine]")).to_have_count(0)
    assert api.requested_paths(host="storage.example") == []
