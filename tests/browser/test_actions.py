"""Actions on a task and on selected tasks: planned effect, confirmation and outcome."""

import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect

from catchlight.models import TaskStatus
from catchlight_cli.gallery.actions import Action, ActionName, ActionOutcome
from tests.browser.conftest import Visit
from tests.tasks_api_in_memory import TasksApiInMemory, a_lost_image, a_task, many_tasks


class FakeActions:
    """Redrives INCOMPLETE tasks only; `effect` is called when an action is carried out."""

    def __init__(self, api: TasksApiInMemory) -> None:
        self._api = api
        self.ran: list[tuple[str, str]] = []
        self.effect: Callable[[str], None] = lambda _: None
        self.detail = "The task is queued for archiving."

    def plan(self, task: str) -> tuple[Action, ...]:
        is_possible = self._api.tasks[task].status is TaskStatus.INCOMPLETE
        effect = "Missing images become PENDING." if is_possible else "No retry is needed or possible."
        redrive = Action(name=ActionName.REDRIVE, effect=effect, is_possible=is_possible)
        poll = Action(name=ActionName.POLL, effect="Only PENDING tasks are polled for.", is_possible=False)
        return (redrive, poll)

    def run(self, name: ActionName, task: str) -> ActionOutcome:
        self.ran.append((name, task))
        self.effect(task)
        return ActionOutcome(name=name, is_done=True, detail=self.detail)


@pytest.fixture
def api() -> TasksApiInMemory:
    now = datetime.now(UTC)
    lost = [a_task(f"t{n}", TaskStatus.INCOMPLETE, arrived_at=now, images=[a_lost_image(f"t{n}")]) for n in range(3)]
    return TasksApiInMemory([*lost, a_task("failed", TaskStatus.FAILED, arrived_at=now)])


@pytest.fixture
def actions(api: TasksApiInMemory) -> FakeActions:
    return FakeActions(api)


@pytest.fixture
def page(visit: Visit, api: TasksApiInMemory, actions: FakeActions) -> Page:
    return visit(api, actions=actions).open()


def test_an_action_shows_its_effect_requires_confirmation_and_shows_its_outcome(
    page: Page, api: TasksApiInMemory, actions: FakeActions
) -> None:
    now = datetime.now(UTC)
    actions.effect = lambda _: api.put(a_task("t0", TaskStatus.SUCCEEDED, arrived_at=now))
    page.get_by_role("link", name="t0").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Poll now")).to_be_disabled()
    redrive = dialog.get_by_role("button", name="Redrive")
    redrive.click()
    expect(dialog.locator(".step")).to_contain_text("Missing images become PENDING.")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog.locator(".step")).to_be_empty()
    assert actions.ran == []
    redrive.click()
    dialog.locator(".step .confirm").click()
    expect(dialog.locator(".outcome")).to_have_text("Redrive: done. The task is queued for archiving.")
    assert actions.ran == [("redrive", "flux-kontext#t0")]
    expect(dialog.locator(".dialog-title .status")).to_have_text("Succeeded")  # the task is loaded again at once


def test_selected_tasks_are_redriven(page: Page, actions: FakeActions) -> None:
    page.get_by_role("link", name="t0").hover()
    page.locator(".card").first.locator(".select").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    for task_id in ("t1", "failed"):
        page.get_by_role("link", name=task_id).focus()
        page.keyboard.press("Space")
    bar = page.get_by_role("region", name="Selected tasks")
    expect(bar).to_contain_text("3 tasks selected")
    expect(page.get_by_role("link", name="Selected, ")).to_have_count(3)
    bar.get_by_role("button", name="Redrive").click()
    expect(bar.locator(".step")).to_contain_text("2 of 3 tasks: Missing images become PENDING.")
    bar.locator(".confirm").click()
    expect(bar.locator(".outcome")).to_have_text("Redrive: 2 of 2 done")
    assert len(actions.ran) == 2
    bar.get_by_role("button", name="Poll now").click()
    expect(bar.locator(".outcome")).to_contain_text("Poll now is possible for none of them")
    bar.get_by_role("button", name="Clear the selection").click()
    expect(bar).to_be_hidden()


def test_a_gallery_without_actions_shows_no_buttons_for_them(visit: Visit, api: TasksApiInMemory) -> None:
    page = visit(api).open("#flux-kontext/t0")
    expect(page.get_by_role("dialog")).to_contain_text("At least one image could not be archived")
    page.wait_for_load_state("networkidle")
    expect(page.get_by_role("dialog").get_by_role("button", name="Redrive")).to_be_hidden()


def test_the_images_of_selected_tasks_are_downloaded_as_a_zip_file(visit: Visit) -> None:
    api = TasksApiInMemory(*many_tasks(12, now=datetime.now(UTC)))
    page = visit(api).open()
    archived = [task for task in api.tasks.values() if task.status is TaskStatus.ARCHIVED][:2]
    for task in archived:
        page.get_by_role("link", name=task.task_id).focus()
        page.keyboard.press("Space")
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download as zip").click()
    with zipfile.ZipFile(io.BytesIO(saved.value.path().read_bytes())) as archive:
        assert len(archive.namelist()) == sum(len(task.images) for task in archived)


def test_an_images_link_is_copied(visit: Visit) -> None:
    api = TasksApiInMemory(*many_tasks(12, now=datetime.now(UTC)))
    task = next(task for task in api.tasks.values() if task.status is TaskStatus.ARCHIVED)
    options = {"permissions": ["clipboard-read", "clipboard-write"]}
    page = visit(api, **options).open(f"#{task.provider}/{task.task_id}")
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert "/result-0.webp?" in page.evaluate("navigator.clipboard.readText()")
