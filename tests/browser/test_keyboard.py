"""The gallery is usable by keyboard alone."""

from playwright.sync_api import expect

from tests.browser.conftest import Visit, focused
from tests.tasks_api_in_memory import TasksApiInMemory


def test_the_tab_key_reaches_every_control_in_visual_order(visit: Visit, api: TasksApiInMemory) -> None:
    page = visit(api).open()
    focused_names = []
    for _ in range(8):
        page.keyboard.press("Tab")
        focused_names.append(
            page.evaluate(
                "document.activeElement.id || document.activeElement.name || document.activeElement.className"
            )
        )
    assert focused_names[:7] == ["skip", "search", "provider", "live", "status", "hours", "reason"]
    first = next(iter(api.tasks.values()))
    assert focused(page) == f"#{first.provider}/{first.task_id}"
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.closest('#grid')")  # the grid is one tab stop, not sixty


def test_the_skip_link_leads_to_the_tasks(visit: Visit, api: TasksApiInMemory) -> None:
    page = visit(api).open()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the tasks")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    first = next(iter(api.tasks.values()))
    assert focused(page) == f"#{first.provider}/{first.task_id}"


def test_arrow_home_end_and_page_keys_move_the_focus_in_the_grid(visit: Visit, api: TasksApiInMemory) -> None:
    page = visit(api, viewport={"width": 1440, "height": 900}).open()
    addresses = [f"#{task.provider}/{task.task_id}" for task in api.tasks.values()]
    columns = page.evaluate("getComputedStyle(document.querySelector('#grid')).gridTemplateColumns.split(' ').length")
    assert columns == 6
    page.locator("#grid").focus()
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
        expect(page.locator(".card a:focus")).to_be_in_viewport(ratio=0.95)
    page.keyboard.press("PageUp")
    assert addresses.index(focused(page)) < 53


def test_a_task_can_be_opened_and_closed_by_keyboard(visit: Visit, api: TasksApiInMemory) -> None:
    page = visit(api).open()
    tasks = list(api.tasks.values())
    dialog = page.get_by_role("dialog")
    page.keyboard.press("/")
    assert focused(page) == "search"
    page.keyboard.type("a/b")  # in the search field, a slash is an ordinary character
    expect(page.get_by_role("searchbox")).to_have_value("a/b")
    page.get_by_role("searchbox").fill("")
    expect(page.locator(".card")).to_have_count(60)
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text(tasks[0].task_id)
    expect(dialog.get_by_role("button", name="Newer task")).to_be_disabled()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text(tasks[2].task_id)
    expect(dialog.locator("#dialog-announcements")).to_contain_text(f"{tasks[2].provider}, {tasks[2].task_id}, ")
    page.keyboard.press("ArrowLeft")
    expect(dialog).to_contain_text(tasks[1].task_id)
    for _ in range(12):  # the focus stays in the dialog
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    # The focus is at the task that was shown last, not at the one that was opened first.
    assert focused(page) == f"#{tasks[1].provider}/{tasks[1].task_id}"
