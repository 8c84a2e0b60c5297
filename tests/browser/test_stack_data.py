"""The page shows data that the tasks API does not have: counts by status, and stored deliveries of a task."""

from datetime import UTC, datetime

from playwright.sync_api import expect

from catchlight.api.response_models import TaskResponse
from catchlight.client.errors import CatchlightError
from catchlight.models import TaskStatus
from catchlight_cli.gallery.stack_reader import ReceivedDelivery, StatusCounts, TaskDeliveries
from tests.browser.conftest import Visit
from tests.tasks_api_in_memory import TasksApiInMemory, many_tasks


class FakeReader:
    """Returns fixed counts, and deliveries with these bodies. Without bodies, reading deliveries is an error."""

    def __init__(self, *bodies: str) -> None:
        self.bodies = bodies

    def count(self, since: datetime | None) -> StatusCounts:
        return StatusCounts(counts=dict.fromkeys(TaskStatus, 3 if since else 12345))

    def deliveries(self, task: TaskResponse) -> TaskDeliveries:
        if not self.bodies:
            raise CatchlightError("These credentials may not read the bucket.")
        return TaskDeliveries(
            deliveries=tuple(
                ReceivedDelivery(
                    key=f"deliveries/{number}.json",
                    received_at=datetime.now(UTC),
                    outcome=f"applied to {task.task_id}",
                    headers={"user-agent": "kie"},
                    body=body,
                )
                for number, body in enumerate(self.bodies)
            )
        )


def an_api() -> TasksApiInMemory:
    return TasksApiInMemory(*many_tasks(24, now=datetime.now(UTC)))


def test_the_status_filter_shows_counts_without_layout_shifts(visit: Visit) -> None:
    visitor = visit(
        an_api(), reader=FakeReader(), viewport={"width": 1440, "height": 900}, reduced_motion="no-preference"
    )
    page = visitor.open()
    expect(page.locator(".statuses [data-status=FAILED] .status-count")).to_have_text("12,345")
    expect(page.locator(".statuses [data-status=''] .status-count")).to_have_text("86,415")
    assert visitor.layout_shift < 0.001, page.evaluate("watched.shifts")
    count = page.locator(".statuses [data-status=FAILED] .status-count").bounding_box()
    toolbar = page.locator(".toolbar").bounding_box()
    assert count
    assert toolbar
    assert count["y"] + count["height"] <= toolbar["y"] + toolbar["height"]
    page.get_by_role("combobox", name="Time").select_option("Last 24 hours")
    expect(page.locator(".statuses [data-status=FAILED] .status-count")).to_have_text("3")


def test_stored_deliveries_are_shown_on_request(visit: Visit) -> None:
    api = an_api()
    first = next(iter(api.tasks.values()))
    page = visit(api, reader=FakeReader('{"taskId": "<b>bold</b>"}', "second")).open(
        f"#{first.provider}/{first.task_id}"
    )
    section = page.locator(".deliveries")
    expect(section.locator("pre")).to_have_count(0)
    section.get_by_role("button", name="Show what the provider sent").click()
    expect(section.locator("pre")).to_have_text(['{"taskId": "<b>bold</b>"}', "second"])
    expect(section).to_contain_text(f"applied to {first.task_id}")


def test_an_error_is_shown_in_place_of_unreadable_deliveries(visit: Visit) -> None:
    api = an_api()
    first = next(iter(api.tasks.values()))
    visitor = visit(api, reader=FakeReader())
    visitor.allowed_errors.append("502")
    page = visitor.open(f"#{first.provider}/{first.task_id}")
    page.get_by_role("button", name="Show what the provider sent").click()
    expect(page.locator(".deliveries [role=status]")).to_have_text("These credentials may not read the bucket.")
