"""Layout at the widths of a desktop, a tablet and a phone: no overlaps, and controls are in view without scrolling."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from catchlight.api.response_models import TaskResponse
from catchlight.models import TaskStatus
from tests.browser.conftest import Visit, newest_with, pixels
from tests.tasks_api_in_memory import TasksApiInMemory, a_lost_image, a_task, many_tasks

WINDOWS = {"desktop": (1440, 900), "tablet": (768, 1024), "phone": (375, 667)}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
LONG_REASON = "HTTP 404 at its URL on every try, the last one a minute before the URL expired. " * 3


def resized(page: Page) -> Iterator[str]:
    """Sets each window size and colour scheme, one after another, scrolls to the top, and yields their names.

    Opening a page for each of them would take six times as long.
    """
    for size, (width, height) in WINDOWS.items():
        page.set_viewport_size({"width": width, "height": height})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            scroll(page, 0)
            yield f"{size}, {scheme}"


def scroll(page: Page, top: int) -> None:
    page.evaluate(
        "(top) => document.querySelectorAll('html, .details, dialog').forEach((each) => each.scrollTo({top}))", top
    )


@pytest.fixture
def two_images(api: TasksApiInMemory) -> TaskResponse:
    return newest_with(api, 2)


def box(locator: Locator) -> tuple[float, float, float, float]:
    """Returns left, top, right and bottom."""
    found = locator.bounding_box()
    assert found is not None
    return found["x"], found["y"], found["x"] + found["width"], found["y"] + found["height"]


def test_scrolled_details_do_not_cover_the_header(
    visit: Visit, api: TasksApiInMemory, two_images: TaskResponse
) -> None:
    page = visit(api).open(f"#{two_images.provider}/{two_images.task_id}")
    header = page.locator(".dialog-bar")
    expect(page.locator(".history li").first).to_be_attached()
    for window in resized(page):
        before = pixels(page, header)
        for distance in range(40, 1000, 120):  # the timeline passes below the header
            scroll(page, distance)
            assert pixels(page, header) == before, (window, distance)


def test_the_dialogs_buttons_are_in_view_before_and_after_scrolling(
    visit: Visit, api: TasksApiInMemory, two_images: TaskResponse
) -> None:
    page = visit(api).open(f"#{two_images.provider}/{two_images.task_id}")
    close = page.get_by_role("button", name="Close")
    save = page.get_by_role("link", name="Save result-0")
    for window in resized(page):
        expect(save, window).to_be_in_viewport(ratio=1)
        expect(close, window).to_be_in_viewport(ratio=1)
        assert box(close)[1] - box(page.get_by_role("dialog"))[1] < 30, window
        scroll(page, 9999)
        expect(close, window).to_be_in_viewport(ratio=1)


def test_the_placeholder_of_the_search_field_is_not_cut_off(visit: Visit) -> None:
    page = visit(TasksApiInMemory()).open()
    for width in (320, 375, 430, 768, 1440):
        page.set_viewport_size({"width": width, "height": 667})
        missing = page.locator("#search").evaluate(
            """(search) => {
              const style = getComputedStyle(search);
              const canvas = document.createElement("canvas").getContext("2d");
              canvas.font = style.font;
              const inner = search.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
              return canvas.measureText(search.placeholder).width - inner;
            }"""
        )
        assert missing <= 0, width


def is_inside_ellipse(inner: tuple[float, ...], outer: tuple[float, ...]) -> bool:
    """Whether a rectangle lies inside the drawn ring, whose line is up to 8 % of its box wide."""
    middle_x, middle_y = (outer[0] + outer[2]) / 2, (outer[1] + outer[3]) / 2
    half_x, half_y = 0.46 * (outer[2] - outer[0]), 0.46 * (outer[3] - outer[1])
    return all(
        ((x - middle_x) / half_x) ** 2 + ((y - middle_y) / half_y) ** 2 <= 1
        for x in (inner[0], inner[2])
        for y in (inner[1], inner[3])
    )


def test_a_long_reason_stays_inside_its_ring(visit: Visit) -> None:
    lost = a_lost_image("t1").model_copy(update={"reason": LONG_REASON})
    page = visit(TasksApiInMemory([a_task("t1", TaskStatus.INCOMPLETE, images=[lost])])).open()
    card = page.locator(".card")
    for window in resized(page):
        assert is_inside_ellipse(box(card.locator(".note")), box(card.locator(".ringed"))), window
    card.locator("a").click()
    dialog = page.get_by_role("dialog")
    for window in resized(page):
        assert is_inside_ellipse(box(dialog.locator(".note")), box(dialog.locator(".ringed"))), window
        expect(dialog.locator(".failure")).to_have_text(LONG_REASON)  # the complete text


def test_results_come_before_originals(visit: Visit) -> None:
    pictures = many_tasks(60, now=datetime.now(UTC))
    task = newest_with(TasksApiInMemory(*pictures), 2)
    origin_first = task.model_copy(update={"images": tuple(sorted(task.images, key=lambda image: image.kind))})
    assert [image.kind for image in origin_first.images] == ["origin", "result"]
    page = visit(TasksApiInMemory([origin_first], pictures[1])).open(f"#{task.provider}/{task.task_id}")
    expect(page.locator(".thumbnails button")).to_have_text(["result", "origin"])
    headings = page.locator(".metadata h3").all_inner_texts()
    assert [text.upper() for text in headings if "Image" in text.title()] == ["IMAGE RESULT-0", "IMAGE ORIGIN-0"]


def test_an_error_is_shown_next_to_the_toolbar(visit: Visit, api: TasksApiInMemory) -> None:
    visitor = visit(api)
    visitor.allowed_errors.append("404")
    page = visitor.open("#flux-kontext/nope")
    error = page.locator("#error")
    for window in resized(page):
        expect(error, window).to_be_in_viewport(ratio=1)
        assert 0 <= box(error)[1] - box(page.locator(".toolbar"))[3] < 30, window


def test_an_error_is_shown_next_to_the_dialogs_title(visit: Visit, api: TasksApiInMemory) -> None:
    other = TasksApiInMemory(api.tasks.values(), api.pictures)
    task = newest_with(other, 2)
    visitor = visit(other)
    visitor.allowed_errors.append("502")
    page = visitor.open(f"#{task.provider}/{task.task_id}")
    error = page.locator("dialog .error")
    for window in resized(page):
        other.before = lambda _: None
        refresh(page)
        expect(error, window).to_be_hidden()
        scroll(page, 9999)
        other.before = lambda _: httpx.Response(403, json={"message": "Forbidden"})
        refresh(page)
        expect(error, window).to_contain_text("execute-api:Invoke")
        expect(error, window).to_be_in_viewport(ratio=1)
        assert 0 <= box(error)[1] - box(page.locator(".dialog-title"))[3] < 30, window


def refresh(page: Page) -> None:
    """Makes the page request its tasks, as it does when its tab is shown again."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_filter_address_and_task_have_the_same_status_label(visit: Visit) -> None:
    now = datetime.now(UTC)
    one_of_each = [a_task(f"t{number}", status, arrived_at=now) for number, status in enumerate(TaskStatus)]
    page = visit(TasksApiInMemory(one_of_each)).open()
    card = page.locator(".card")
    for status in TaskStatus:
        label = status.replace("_", " ").capitalize()
        page.locator(".statuses label", has_text=label).click()
        assert f"status={status}" in page.url
        expect(card).to_have_count(1)
        expect(card.locator(".status")).to_have_text(label)
        if status in (TaskStatus.FAILED, TaskStatus.INCOMPLETE, TaskStatus.UNCONFIRMED):
            expect(card.locator(".note")).to_have_text(label)  # in place of the reason, which these tasks lack
        card.locator("a").click()
        expect(page.locator(".dialog-title .status")).to_have_text(label)
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
