"""Accessibility: names, contrast, narrow and low windows, forced colours, reduced motion."""

import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from playwright.sync_api import Page, expect

from catchlight.models import TaskStatus
from local.demo.chromium import wait_until
from tests.browser.conftest import Visit, newest_with
from tests.tasks_api_in_memory import TasksApiInMemory, a_task


def test_every_control_has_an_accessible_name(visit: Visit, api: TasksApiInMemory) -> None:
    task = newest_with(api, 2)
    page = visit(api).open()
    expect(page.locator(".card")).to_have_count(60)
    name = page.get_by_role("link", name=task.task_id).get_attribute("aria-label") or ""
    assert name.startswith(f"Archived, flux-kontext, {task.task_id}, ")
    assert "2 images, callback · " in name or "2 images, poll · " in name
    for address in ("", f"#{task.provider}/{task.task_id}"):
        page.goto(page.url.partition("#")[0] + address)
        session = page.context.new_cdp_session(page)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        focusable = [
            node
            for node in nodes
            if not node.get("ignored")
            and any(each["name"] == "focusable" and each["value"].get("value") for each in node.get("properties", []))
            and node["role"]["value"] not in ("RootWebArea", "dialog")
        ]
        assert len(focusable) > 10
        nameless = [node["role"]["value"] for node in focusable if not node.get("name", {}).get("value")]
        assert nameless == []
    expect(page.get_by_role("dialog")).to_have_attribute("aria-labelledby", "dialog-title")


def test_accessible_names_follow_the_elapsed_time(visit: Visit) -> None:
    arrived_at = datetime.now(UTC) - timedelta(seconds=40)
    visitor = visit(
        TasksApiInMemory([a_task("t1", arrived_at=arrived_at), a_task("t2", TaskStatus.PENDING, arrived_at=arrived_at)])
    )
    visitor.page.clock.install()
    page = visitor.open()
    link = page.get_by_role("link", name="t1")
    expect(link).to_have_attribute("aria-label", re.compile("just now$"))
    page.clock.fast_forward(30_000)
    expect(link).to_have_attribute("aria-label", re.compile("1 min ago$"))
    expect(page.get_by_role("link", name="t2")).to_have_attribute("aria-label", "Pending, flux-kontext, t2, 1 min ago")


def contrast(page: Page, selector: str, ground: str) -> float:
    """Returns WCAG's contrast ratio of an element's text colour and the background colour of another element."""
    return float(
        page.evaluate(
            """([selector, ground]) => {
              const channels = (colour) => {
                const canvas = new OffscreenCanvas(1, 1).getContext("2d");
                canvas.fillStyle = colour;
                canvas.fillRect(0, 0, 1, 1);
                return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
              };
              const light = (colour) => channels(colour).map((c) => c / 255)
                .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
                .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
              const one = light(getComputedStyle(document.querySelector(selector)).color);
              const other = light(getComputedStyle(document.querySelector(ground)).backgroundColor);
              return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
            }""",
            [selector, ground],
        )
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_colour_schemes(visit: Visit, scheme: str) -> None:
    now = datetime.now(UTC)
    tasks = [
        a_task(f"t{number}", status, arrived_at=now, request={"prompt": "a tree"})
        for number, status in enumerate(TaskStatus)
    ]
    page = visit(TasksApiInMemory(tasks), color_scheme=scheme).open()
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert background == {"light": "rgb(241, 238, 231)", "dark": "rgb(25, 22, 19)"}[scheme]
    pairs = {".age": "html", ".prompt": "html", ".count": "html", ".statuses label:last-of-type span": "html"}
    pairs |= {".tile .provider": ".tile", ".tile .id": ".tile", ".tile .source": ".tile"}
    pairs |= {f".card[data-status={status}] .status": ".tile" for status in TaskStatus}
    pairs |= {f".statuses [data-status={status}] .mark": "html" for status in TaskStatus}
    pairs[".statuses input:checked + span"] = ".statuses input:checked + span"
    low = {text: ratio for text, ground in pairs.items() if (ratio := contrast(page, text, ground)) < 4.5}
    assert low == {}


def test_statuses_are_distinguishable_without_colour(visit: Visit) -> None:
    now = datetime.now(UTC)
    failure = {"reason": "INTERNAL"}
    tasks = [
        a_task(f"t{number}", status, arrived_at=now, failure=failure if status is TaskStatus.FAILED else None)
        for number, status in enumerate(TaskStatus)
    ]
    page = visit(TasksApiInMemory(tasks)).open()
    marks = page.eval_on_selector_all(".card .status use", "(all) => all.map((one) => one.getAttribute('href'))")
    labels = []
    for status in page.locator(".card .status").all():
        # The browser does not render cards far outside the window, and a text that is not rendered is empty.
        status.scroll_into_view_if_needed()
        expect(status).not_to_have_text("", use_inner_text=True)
        labels.append(status.inner_text())
    assert len(set(marks)) == len(set(labels)) == len(TaskStatus)
    assert page.locator(".card[data-status=FAILED] .crossed-out").count() == 1
    assert page.locator(".card[data-status=INCOMPLETE] .ringed").count() == 1


def test_reduced_motion_disables_animations(visit: Visit, api: TasksApiInMemory) -> None:
    moving = visit(api, reduced_motion="no-preference").open()
    wait_until(moving, "document.getAnimations().length > 0")
    still = visit(api, reduced_motion="reduce").open()
    # Animations begin with the frame that draws what moves.
    still.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))")
    assert still.evaluate("document.getAnimations().length") == 0


def test_narrow_screens_do_not_scroll_sideways(visit: Visit, api: TasksApiInMemory) -> None:
    task = newest_with(api, 2)
    page = visit(api, viewport={"width": 390, "height": 720}, has_touch=True, is_mobile=True).open()
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    for width in (320, 390, 760):
        page.set_viewport_size({"width": width, "height": 720})
        assert page.evaluate(fits), width
        for name in ("Search by task id or prompt", "Provider"):
            expect(page.get_by_label(name)).to_be_in_viewport(ratio=1)
        expect(page.locator("#live")).to_be_in_viewport(ratio=1)
        page.locator(f".card a[href='#{task.provider}/{task.task_id}']").tap()
        image = page.locator(".main-image img")
        expect(image).to_be_in_viewport(ratio=1)
        assert page.evaluate(fits), width
        close = page.get_by_role("button", name="Close")
        close.scroll_into_view_if_needed()
        expect(close).to_be_in_viewport(ratio=1)
        close.tap()
        expect(page.get_by_role("dialog")).to_be_hidden()
        page.evaluate("scrollTo(0, 0)")


def test_the_toolbar_does_not_cover_the_focused_task_in_a_low_window(visit: Visit, api: TasksApiInMemory) -> None:
    page = visit(api, viewport={"width": 320, "height": 256}).open()  # as a large window at 400 % zoom
    page.keyboard.press("/")
    page.keyboard.press("Enter")
    for _ in range(4):
        page.keyboard.press("ArrowDown")
    focused_card = page.locator(".card a:focus")
    top = focused_card.evaluate("(card) => card.getBoundingClientRect().top")
    bar = page.locator(".toolbar").bounding_box()
    assert bar is not None
    assert bar["y"] + bar["height"] <= max(top, 0)


def test_the_selected_image_is_marked_in_forced_colours(visit: Visit, api: TasksApiInMemory) -> None:
    task = newest_with(api, 2)
    page = visit(api, forced_colors="active").open(f"#{task.provider}/{task.task_id}")
    outlines = page.locator(".thumbnails button").evaluate_all(
        "(all) => all.map((one) => getComputedStyle(one).outlineStyle)"
    )
    assert outlines == ["solid", "none"]


def test_the_gallery_uses_the_tasks_api_only(visit: Visit, api: TasksApiInMemory) -> None:
    other_requests: list[str] = []
    other = TasksApiInMemory(api.tasks.values(), api.pictures)

    def record(request: httpx.Request) -> None:
        if request.method != "GET" or request.url.path.split("/")[1] not in ("tasks", "images"):
            other_requests.append(str(request.url))

    other.before = record
    page = visit(other).open()
    page.locator(".card a").nth(5).click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert other_requests == []
