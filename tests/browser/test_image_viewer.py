"""The viewer of the task dialog: zoom and full screen, by pointer and by keyboard."""

import re
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect

from catchlight.models import TaskStatus
from local.demo.chromium import wait_until
from tests.browser.conftest import Visit, newest_with
from tests.tasks_api_in_memory import TasksApiInMemory, a_task


@pytest.fixture
def page(visit: Visit, api: TasksApiInMemory) -> Page:
    """The dialog of a task with a result and an original."""
    task = newest_with(api, 2)
    page = visit(api).open(f"#{task.provider}/{task.task_id}")
    page.locator(".main-image img").evaluate("(image) => image.decode()")
    return page


def width(page: Page) -> float:
    return float(page.locator(".main-image img").evaluate("(image) => image.getBoundingClientRect().width"))


def test_a_click_zooms_at_its_position_and_a_second_click_fits_the_image(page: Page) -> None:
    image, frame = page.locator(".main-image img"), page.locator(".main-image")
    fitted = width(page)
    shown = image.bounding_box()
    assert shown is not None
    image.click(position={"x": shown["width"] - 4, "y": shown["height"] - 4})
    assert width(page) > 1.5 * fitted
    expect(page.get_by_role("button", name="Zoom")).to_have_attribute("aria-pressed", "true")
    assert frame.evaluate("(frame) => frame.scrollTop > 0.8 * (frame.scrollHeight - frame.clientHeight)")
    image.click()
    assert width(page) == fitted


def test_the_keyboard_zooms_and_moves_a_zoomed_image(page: Page) -> None:
    fitted, address = width(page), page.url
    frame = page.locator(".main-image")
    page.keyboard.press("z")
    assert width(page) > 1.5 * fitted
    before = frame.evaluate("(frame) => frame.scrollTop")
    page.keyboard.press("ArrowDown")
    wait_until(page, "(top) => document.querySelector('.main-image').scrollTop > top", before)
    page.keyboard.press("ArrowRight")
    assert page.url == address  # arrow keys move the image and do not open another task
    page.keyboard.press("Escape")
    assert width(page) == fitted
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("ArrowRight")
    assert page.url != address


def test_selecting_another_image_resets_the_zoom(page: Page) -> None:
    page.keyboard.press("z")
    page.get_by_role("button", name="origin-0").click()
    expect(page.get_by_role("button", name="Zoom")).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".main-image.is-zoomed")).to_have_count(0)
    expect(page.get_by_role("link", name="Save origin-0")).to_be_visible()


def test_wait_until_works_under_the_content_security_policy(page: Page) -> None:
    page.evaluate("() => { setTimeout(() => { window.isLater = true }, 200) }")

    wait_until(page, "window.isLater")


@pytest.mark.parametrize("control", ["key", "button"])
def test_an_image_can_be_shown_on_the_full_screen(page: Page, control: str) -> None:
    if control == "key":
        page.keyboard.press("f")
    else:
        page.get_by_role("button", name="Full screen").click()
    wait_until(page, "document.fullscreenElement?.classList.contains('viewer')")
    expect(page.locator(".main-image img")).to_be_in_viewport(ratio=1)
    page.keyboard.press("f")
    wait_until(page, "document.fullscreenElement === null")
    expect(page.get_by_role("dialog")).to_be_visible()


def test_original_and_result_are_compared_with_a_slider(page: Page) -> None:
    compare = page.get_by_role("button", name="Compare")
    compare.click()
    expect(compare).to_have_attribute("aria-pressed", "true")
    shown = page.locator(".main-image img")
    expect(shown).to_have_count(2)
    assert [image.get_attribute("alt") for image in shown.all()] == ["origin-0", "result-0"]
    address = page.url
    page.keyboard.press("ArrowRight")  # the slider has the focus
    page.keyboard.press("ArrowRight")
    assert page.url == address
    assert "52%" in shown.last.evaluate("(image) => image.style.clipPath")
    page.keyboard.press("c")
    expect(shown).to_have_count(1)
    compare.click()
    page.get_by_role("button", name="origin-0").click()
    expect(shown).to_have_count(1)
    expect(shown).to_have_attribute("src", re.compile("origin-0$"))


def test_without_an_original_there_is_no_button_to_compare(visit: Visit, api: TasksApiInMemory) -> None:
    task = newest_with(api, 1)
    page = visit(api).open(f"#{task.provider}/{task.task_id}")
    expect(page.get_by_role("button", name="Copy link")).to_be_visible()
    expect(page.get_by_role("button", name="Compare")).to_be_hidden()


def test_opening_a_task_without_images_ends_the_comparison(visit: Visit, api: TasksApiInMemory) -> None:
    task = newest_with(api, 2)
    now = datetime.now(UTC)
    tasks = TasksApiInMemory([a_task("pending", TaskStatus.PENDING, arrived_at=now), task], api.pictures)
    page = visit(tasks).open(f"#{task.provider}/{task.task_id}")
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("button", name="Newer task").click()
    expect(page.locator(".main-image .status-sign")).to_be_visible()
    tasks.put(a_task("pending", arrived_at=now, images=task.images))
    expect(page.locator(".main-image img")).to_have_count(1)
