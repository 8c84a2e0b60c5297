"""One task close up: its images, its story, its address; by pointer and by keyboard."""

import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from playwright.sync_api import Page, expect

from catchlight.client.downloading import file_name
from image_tasks.desk.messages import TaskAnswer
from image_tasks.models import TaskStatus, iso
from tests.browser.conftest import Visit
from tests.desk_in_memory import DeskInMemory, a_lost_image, a_task, many_tasks


@pytest.fixture(scope="module")
def desk() -> DeskInMemory:
    return DeskInMemory(*many_tasks(60, now=datetime.now(UTC)))


def newest_with(desk: DeskInMemory, images: int) -> TaskAnswer:
    return next(
        task for task in desk.tasks.values() if task.status is TaskStatus.ARCHIVED and len(task.images) == images
    )


def shown_image(page: Page) -> tuple[int, str]:
    image = page.locator(".stage img")
    expect(image).to_be_visible()
    page.wait_for_load_state("networkidle")
    return image.evaluate("(image) => image.decode().then(() => image.naturalWidth)"), image.get_attribute("src") or ""


def test_a_frame_opens_its_task_with_image_facts_and_history(visit: Visit, desk: DeskInMemory) -> None:
    task = newest_with(desk, 2)
    result, origin = task.images
    page = visit(desk).open()
    page.get_by_role("link", name=task.task_id).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert page.url.endswith(f"#flux-kontext/{task.task_id}")
    width, source = shown_image(page)
    assert (width, source.endswith("result-0")) == (result.width, True)
    for words in (
        str((task.request or {})["prompt"]),
        f"{result.width} \N{MULTIPLICATION SIGN} {result.height}",
        result.key,
        result.sha256,
        "Registered",
        "Result by callback" if task.reported_by == "callback" else "Result found by polling",
        "All images archived",
    ):
        expect(dialog).to_contain_text(words or "")
    page.get_by_role("button", name="origin-0").click()
    expect(page.locator(".stage img")).to_have_attribute("src", f"images/flux-kontext/{task.task_id}/origin-0")
    assert shown_image(page)[0] == origin.width
    expect(page.get_by_role("button", name="origin-0")).to_have_attribute("aria-pressed", "true")


def test_an_address_opens_its_task_and_the_way_back_closes_it(visit: Visit, desk: DeskInMemory) -> None:
    task = list(desk.tasks.values())[40]
    visitor = visit(desk)
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


def test_what_was_looked_at_is_not_in_the_way_back(visit: Visit, desk: DeskInMemory) -> None:
    visitor = visit(desk)
    page = visitor.page
    page.goto("about:blank")
    visitor.open()
    dialog = page.get_by_role("dialog")
    steps = page.evaluate("history.length")
    for number in range(3):
        page.locator(".frame a").nth(number).click()
        expect(dialog).to_be_visible()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        page.wait_for_function("location.hash === ''")
        assert focused(page) == page.locator(".frame a").nth(number + 1).get_attribute("href")
    assert page.evaluate("history.length") <= steps + 1  # the last one, ahead
    page.go_forward()
    expect(dialog).to_be_visible()
    page.reload()
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    page.wait_for_function("location.hash === ''")
    assert page.url.startswith(visitor.gallery.url)


def test_an_address_that_is_back_before_the_dialog_has_told_that_it_is_closed(visit: Visit, desk: DeskInMemory) -> None:
    task = next(iter(desk.tasks.values()))
    page = visit(desk).open(f"#{task.provider}/{task.task_id}")
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


def test_an_address_of_no_task(visit: Visit, desk: DeskInMemory) -> None:
    visitor = visit(desk)
    visitor.allowed_errors.append("404")
    page = visitor.open("#flux-kontext/nope")
    expect(page.locator("#trouble")).to_have_text("There is no task nope of flux-kontext.")
    expect(page.locator("#trouble")).to_be_visible()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_the_original_can_be_opened(visit: Visit, desk: DeskInMemory) -> None:
    visitor = visit(desk)
    task = newest_with(desk, 1)
    page = visitor.open(f"#{task.provider}/{task.task_id}")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Open the original").click()
    original = opened.value
    original.wait_for_load_state()
    assert original.url == f"{visitor.gallery.url}images/{task.provider}/{task.task_id}/result-0"
    assert original.evaluate("document.images[0].naturalWidth") == task.images[0].width


def test_an_image_is_saved_under_the_name_that_the_command_line_gives_it(visit: Visit, desk: DeskInMemory) -> None:
    task = newest_with(desk, 1)
    page = visit(desk).open(f"#{task.provider}/{task.task_id}")
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save result-0").click()
    assert saved.value.suggested_filename == file_name(task, task.images[0])
    assert saved.value.path().read_bytes() == desk.pictures[task.images[0].key or ""]


def test_the_prompt_and_the_key_can_be_copied(visit: Visit) -> None:
    task = a_task("t1", request={"prompt": "a small sail,\nlow sun"}, idempotency_key="order-1")
    page = visit(DeskInMemory([task]), permissions=["clipboard-read", "clipboard-write"]).open("#flux-kontext/t1")
    for what, words in (("prompt", "a small sail,\nlow sun"), ("idempotency key", "order-1")):
        button = page.get_by_role("button", name=f"Copy the {what}")
        button.click()
        expect(button).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == words


def test_an_image_that_cannot_be_had_is_said(visit: Visit) -> None:
    tasks, _ = many_tasks(8, now=datetime.now(UTC))
    visitor = visit(DeskInMemory(tasks))
    visitor.allowed_errors.append("502")
    page = visitor.open()
    task = next(task for task in tasks if task.status is TaskStatus.ARCHIVED)
    link = page.get_by_role("link", name=task.task_id)
    expect(link).to_contain_text("cannot be shown")
    link.click()
    expect(page.get_by_role("dialog")).to_contain_text("This image cannot be shown.")


def test_an_image_that_could_not_be_had_comes_once_it_can(visit: Visit) -> None:
    desk = DeskInMemory(*many_tasks(8, now=datetime.now(UTC)))
    visitor = visit(desk)
    visitor.allowed_errors.append("502")
    desk.before = lambda request: httpx.Response(403) if request.url.host == "storage.example" else None
    page = visitor.open()
    link = page.get_by_role("link", name=newest_with(desk, 1).task_id)
    expect(link).to_contain_text("cannot be shown")
    desk.before = lambda _: None
    expect(link.locator("img.is-developed")).to_be_visible()
    expect(link).not_to_contain_text("cannot be shown")


def test_why_a_task_failed_and_what_contradicted_it(visit: Visit) -> None:
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
    page = visit(DeskInMemory([failed, unregistered, incomplete])).open("#flux-kontext/t1")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Content policy (400): Your prompt was flagged")
    expect(dialog).to_contain_text("Failure by callback, which came 3 times")
    expect(dialog).to_contain_text("A callback claimed SUCCEEDED: not applied")
    expect(dialog).to_contain_text("https://169.254.169.254/x.jpg")
    assert dialog.get_by_role("link").count() == 0  # what a stranger claimed is no link
    page.keyboard.press("Escape")
    page.get_by_role("link", name="t2").click()
    expect(dialog).to_contain_text("Nobody registered it")
    page.keyboard.press("Escape")
    page.get_by_role("link", name="t3").click()
    expect(dialog).to_contain_text("its URL was dead: HTTP 404 on every try")


# ------------------------------------------------------------------------------------------------ keyboard


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.getAttribute('href') ?? document.activeElement.id"))


def test_the_tab_key_reaches_every_part_in_the_order_of_the_eye(visit: Visit, desk: DeskInMemory) -> None:
    page = visit(desk).open()
    seen = []
    for _ in range(6):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate(
                "document.activeElement.id || document.activeElement.name || document.activeElement.className"
            )
        )
    assert seen[:5] == ["skip", "search", "provider", "live", "status"]
    first = next(iter(desk.tasks.values()))
    assert focused(page) == f"#{first.provider}/{first.task_id}"
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.closest('#sheet')")  # the sheet is one stop, not sixty


def test_the_skip_link_leads_to_the_tasks(visit: Visit, desk: DeskInMemory) -> None:
    page = visit(desk).open()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the tasks")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    first = next(iter(desk.tasks.values()))
    assert focused(page) == f"#{first.provider}/{first.task_id}"


def test_arrows_move_in_the_grid(visit: Visit, desk: DeskInMemory) -> None:
    page = visit(desk, viewport={"width": 1440, "height": 900}).open()
    addresses = [f"#{task.provider}/{task.task_id}" for task in desk.tasks.values()]
    columns = page.evaluate("getComputedStyle(document.querySelector('#sheet')).gridTemplateColumns.split(' ').length")
    assert columns == 6
    page.locator("#sheet").focus()
    page.keyboard.press("Tab")
    for key, place in (
        ("ArrowRight", 1),
        ("ArrowDown", 7),
        ("ArrowDown", 13),
        ("ArrowLeft", 12),
        ("ArrowUp", 6),
        ("Home", 0),
        ("ArrowLeft", 0),
        ("ArrowUp", 0),
        ("End", 59),
        ("ArrowDown", 59),
        ("ArrowRight", 59),
        ("ArrowUp", 53),
    ):
        page.keyboard.press(key)
        assert addresses.index(focused(page)) == place, key
        expect(page.locator(".frame a:focus")).to_be_in_viewport(ratio=0.95)
    page.keyboard.press("PageUp")
    assert addresses.index(focused(page)) < 53


def test_a_task_can_be_looked_at_without_a_pointer(visit: Visit, desk: DeskInMemory) -> None:
    page = visit(desk).open()
    tasks = list(desk.tasks.values())
    dialog = page.get_by_role("dialog")
    page.keyboard.press("/")
    assert focused(page) == "search"
    page.keyboard.type("a/b")  # a slash is a letter in here
    expect(page.get_by_role("searchbox")).to_have_value("a/b")
    page.get_by_role("searchbox").fill("")
    expect(page.locator(".frame")).to_have_count(60)
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text(tasks[0].task_id)
    expect(dialog.get_by_role("button", name="Newer task")).to_be_disabled()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text(tasks[2].task_id)
    expect(dialog.get_by_role("status")).to_contain_text(f"{tasks[2].provider}, {tasks[2].task_id}, ")
    page.keyboard.press("ArrowLeft")
    expect(dialog).to_contain_text(tasks[1].task_id)
    for _ in range(12):  # the focus stays in the dialog
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert focused(page) == f"#{tasks[1].provider}/{tasks[1].task_id}"  # where one left off, not where one began


# ------------------------------------------------------------------------------------------------ for every eye and ear


def test_everything_that_can_be_used_says_what_it_is(visit: Visit, desk: DeskInMemory) -> None:
    task = newest_with(desk, 2)
    page = visit(desk).open()
    expect(page.locator(".frame")).to_have_count(60)
    name = page.get_by_role("link", name=task.task_id).get_attribute("aria-label") or ""
    assert name.startswith(f"Archived, flux-kontext, {task.task_id}, ")
    assert "2 images, callback · " in name or "2 images, poll · " in name
    for address in ("", f"#{task.provider}/{task.task_id}"):
        page.goto(page.url.partition("#")[0] + address)
        session = page.context.new_cdp_session(page)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        usable = [
            node
            for node in nodes
            if not node.get("ignored")
            and any(each["name"] == "focusable" and each["value"].get("value") for each in node.get("properties", []))
            and node["role"]["value"] not in ("RootWebArea", "dialog")
        ]
        assert len(usable) > 10
        nameless = [node["role"]["value"] for node in usable if not node.get("name", {}).get("value")]
        assert nameless == []
    expect(page.get_by_role("dialog")).to_have_attribute("aria-labelledby", "loupe-title")


def test_a_name_keeps_up_with_the_time(visit: Visit) -> None:
    begun = datetime.now(UTC) - timedelta(seconds=40)
    page = visit(
        DeskInMemory([a_task("t1", arrived_at=begun), a_task("t2", TaskStatus.PENDING, arrived_at=begun)])
    ).open()
    link = page.get_by_role("link", name="t1")
    expect(link).to_have_attribute("aria-label", re.compile("just now$"))
    expect(link).to_have_attribute("aria-label", re.compile("1 min ago$"))
    expect(page.get_by_role("link", name="t2")).to_have_attribute("aria-label", "Waiting, flux-kontext, t2, 1 min ago")


def contrast(page: Page, selector: str, ground: str) -> float:
    """WCAG's contrast of a text's colour with the background of another element."""
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
def test_words_can_be_read_by_day_and_by_night(visit: Visit, scheme: str) -> None:
    now = datetime.now(UTC)
    tasks = [
        a_task(f"t{number}", status, arrived_at=now, request={"prompt": "a tree"})
        for number, status in enumerate(TaskStatus)
    ]
    page = visit(DeskInMemory(tasks), color_scheme=scheme).open()
    table = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert table == {"light": "rgb(241, 238, 231)", "dark": "rgb(25, 22, 19)"}[scheme]
    pairs = {".age": "html", ".prompt": "html", ".count": "html", ".statuses label:last-child span": "html"}
    pairs |= {".film .provider": ".film", ".film .id": ".film", ".film .how": ".film"}
    pairs |= {f".frame[data-status={status}] .status": ".film" for status in TaskStatus}
    pairs |= {f".statuses [data-status={status}] .mark": "html" for status in TaskStatus}
    pairs[".statuses input:checked + span"] = ".statuses input:checked + span"
    low = {text: ratio for text, ground in pairs.items() if (ratio := contrast(page, text, ground)) < 4.5}
    assert low == {}


def test_statuses_differ_by_more_than_their_colour(visit: Visit) -> None:
    now = datetime.now(UTC)
    failure = {"reason": "INTERNAL"}
    tasks = [
        a_task(f"t{number}", status, arrived_at=now, failure=failure if status is TaskStatus.FAILED else None)
        for number, status in enumerate(TaskStatus)
    ]
    page = visit(DeskInMemory(tasks)).open()
    marks = page.eval_on_selector_all(".frame .status use", "(all) => all.map((one) => one.getAttribute('href'))")
    words = page.locator(".frame .status").all_inner_texts()
    assert len(set(marks)) == len(set(words)) == len(TaskStatus)
    assert page.locator(".frame[data-status=FAILED] .crossed-out").count() == 1
    assert page.locator(".frame[data-status=INCOMPLETE] .ringed").count() == 1


def test_nothing_is_animated_for_those_who_do_not_want_it(visit: Visit, desk: DeskInMemory) -> None:
    still = visit(desk, reduced_motion="reduce").open()
    assert still.evaluate("document.getAnimations().length") == 0
    assert visit(desk).open().evaluate("document.getAnimations().length") > 0


@pytest.mark.parametrize("width", [320, 390, 760])
def test_narrow_screens(visit: Visit, desk: DeskInMemory, width: int) -> None:
    task = newest_with(desk, 2)
    visitor = visit(desk, viewport={"width": width, "height": 720}, has_touch=True, is_mobile=True)
    page = visitor.open()
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.evaluate(fits)
    for name in ("Search by task id or prompt", "Provider"):
        expect(page.get_by_label(name)).to_be_in_viewport(ratio=1)
    expect(page.locator("#live")).to_be_in_viewport(ratio=1)
    page.locator(f".frame a[href='#{task.provider}/{task.task_id}']").tap()
    image = page.locator(".stage img")
    expect(image).to_be_in_viewport(ratio=1)
    assert page.evaluate(fits)
    close = page.get_by_role("button", name="Close")
    close.scroll_into_view_if_needed()
    expect(close).to_be_in_viewport(ratio=1)
    close.tap()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_a_low_window_is_not_all_bar(visit: Visit, desk: DeskInMemory) -> None:
    page = visit(desk, viewport={"width": 320, "height": 256}).open()  # a large window, at 400 %
    page.keyboard.press("/")
    page.keyboard.press("Enter")
    for _ in range(4):
        page.keyboard.press("ArrowDown")
    frame = page.locator(".frame a:focus")
    top = frame.evaluate("(frame) => frame.getBoundingClientRect().top")
    bar = page.locator(".bar").bounding_box()
    assert bar is not None
    assert bar["y"] + bar["height"] <= max(top, 0)  # nothing of it is under the bar


def test_the_shown_image_is_marked_without_the_pages_colours(visit: Visit, desk: DeskInMemory) -> None:
    task = newest_with(desk, 2)
    page = visit(desk, forced_colors="active").open(f"#{task.provider}/{task.task_id}")
    outlines = page.locator(".strip button").evaluate_all(
        "(all) => all.map((one) => getComputedStyle(one).outlineStyle)"
    )
    assert outlines == ["solid", "none"]


def test_the_desk_is_asked_nothing_that_it_does_not_offer(visit: Visit, desk: DeskInMemory) -> None:
    refused: list[str] = []
    other = DeskInMemory(desk.tasks.values(), desk.pictures)

    def note(request: httpx.Request) -> None:
        if request.method != "GET" or request.url.path.split("/")[1] not in ("tasks", "images"):
            refused.append(str(request.url))

    other.before = note
    page = visit(other).open()
    page.locator(".frame a").nth(5).click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert refused == []
