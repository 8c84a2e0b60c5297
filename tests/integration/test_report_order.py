"""Callbacks and polls in any order, also repeated, end in the same status, and none lowers the rank of a task."""

import itertools
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catchlight.models import Failure, FailureReason, Image, ImageKind, ImageState, Reporter, TaskReport, TaskStatus
from catchlight.providers import PROVIDERS
from catchlight.providers.payloads import decode_json
from tests.integration.conftest import REPOSITORY, Store

NOW = datetime(2026, 1, 6, 0, 17, 5, tzinfo=UTC)
fresh_ids = (f"task{number}" for number in itertools.count())

# All examples share the fixture, so each example creates tasks of its own.
examples = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def images(*names: str) -> tuple[Image, ...]:
    return tuple(
        Image(kind=ImageKind.RESULT, url=f"https://host.example/{name}.png", expires_at=NOW + timedelta(days=1))
        for name in names
    )


def report(
    status: TaskStatus, reporter: Reporter, minute: int, reason: FailureReason | None = None, *image_names: str
) -> TaskReport:
    return TaskReport(
        provider="flux-kontext",
        task_id="replaced",
        status=status,
        reported_by=reporter,
        reported_at=NOW + timedelta(minutes=minute),
        images=images(*image_names),
        failure=Failure(reason=reason) if reason else None,
    )


reporters = st.sampled_from(list(Reporter))
minutes = st.integers(0, 600)
any_report = st.one_of(
    st.builds(report, st.just(TaskStatus.PENDING), reporters, minutes),
    st.builds(report, st.just(TaskStatus.TIMED_OUT), st.just(Reporter.POLL), minutes, st.just(FailureReason.NO_RESULT)),
    st.builds(report, st.just(TaskStatus.FAILED), reporters, minutes, st.sampled_from(list(FailureReason))),
    st.builds(report, st.just(TaskStatus.SUCCEEDED), reporters, minutes, st.none(), st.sampled_from(["a", "b"])),
)


def deliver(store: Store, reports: Iterable[TaskReport]) -> dict[str, Any]:
    """Records these reports of a new task, checks the item after each report, and returns it."""
    task_id = next(fresh_ids)
    task = f"flux-kontext#{task_id}"
    rank, delivered = -1, 0
    for report in reports:
        store.reports.record(report.model_copy(update={"task_id": task_id}))
        item = store.item(task)
        assert item is not None
        assert item["rank"] == TaskStatus(item["status"]).rank == max(rank, report.status.rank)
        assert ("images" in item) == (item["status"] == "SUCCEEDED")
        assert ("failure" in item) == (item["status"] in ("FAILED", "TIMED_OUT"))
        rank = item["rank"]
        delivered += report.reported_by is Reporter.CALLBACK
        # Repeated callbacks are not counted, because they write nothing.
        assert item.get("deliveries", 0) <= delivered
    item = store.item(task)
    assert item is not None
    return item


@examples
@given(data=st.data(), reports=st.lists(any_report, min_size=1, max_size=6))
def test_any_order_and_repetition_ends_in_the_same_status(
    store: Store, data: st.DataObject, reports: list[TaskReport]
) -> None:
    best = max(reports, key=lambda report: report.status.rank)
    in_order = deliver(store, reports)

    repetitions = data.draw(st.lists(st.sampled_from(reports), max_size=4))
    otherwise = deliver(store, data.draw(st.permutations(reports + repetitions)))

    assert in_order["status"] == otherwise["status"] == best.status
    assert in_order["rank"] == otherwise["rank"]


@examples
@given(reports=st.lists(any_report, min_size=1, max_size=6))
def test_the_first_report_with_the_highest_rank_stays(store: Store, reports: list[TaskReport]) -> None:
    best = max(report.status.rank for report in reports)
    first = next(report for report in reports if report.status.rank == best)

    item = deliver(store, reports)

    assert [image["url"] for image in item.get("images", [])] == [image.url for image in first.images]
    assert item.get("failure", {}).get("reason") == (first.failure.reason if first.failure else None)


@examples
@given(
    before=st.lists(any_report, max_size=3),
    after=st.lists(any_report, min_size=1, max_size=5),
    states=st.lists(
        st.sampled_from([ImageState.ARCHIVED, ImageState.EXPIRED, ImageState.REJECTED]), min_size=1, max_size=1
    ),
)
def test_later_reports_do_not_change_an_archived_or_incomplete_task(
    store: Store, before: list[TaskReport], after: list[TaskReport], states: list[ImageState]
) -> None:
    success = report(TaskStatus.SUCCEEDED, Reporter.CALLBACK, 0, None, "a")
    task_id = deliver(store, [*before, success])["taskId"]
    task = store.table.get(f"flux-kontext#{task_id}")
    assert task is not None
    settled = {0: task.images[0].model_copy(update={"state": states[0]})}
    status = store.images.save(task, settled, now=NOW).status
    archived = store.item(task.task)
    assert archived is not None
    assert archived["status"] == status

    for later in after:
        store.reports.record(later.model_copy(update={"task_id": task_id}))

    item = store.item(task.task)
    assert item is not None
    assert {**item, "deliveries": 0, "conflicts": []} == {**archived, "deliveries": 0, "conflicts": []}


# ------------------------------------------------------------------------------------------------ real callbacks


def callback(path: Path) -> TaskReport:
    body = json.loads(path.read_text())["body"]
    return PROVIDERS[path.parent.name].parse_callback(decode_json(body.encode()), received_at=NOW)


@pytest.mark.parametrize(
    ("provider_id", "names"),
    [
        ("flux-kontext", ["success", "content_policy", "internal_error"]),
        ("nanobanana", ["success", "generation_failed", "record_generating"]),
        ("acedata", ["success", "failure", "failure_content_policy"]),
    ],
)
def test_the_same_callbacks_in_any_order_end_in_success(store: Store, provider_id: str, names: list[str]) -> None:
    reports = [callback(REPOSITORY / f"events/callbacks/{provider_id}/{name}.json") for name in names]

    for order in itertools.permutations([*reports, reports[0]]):
        task_id = next(fresh_ids)
        for later in order:
            store.reports.record(later.model_copy(update={"task_id": task_id}))
        item = store.item(f"{provider_id}#{task_id}")
        assert item is not None
        assert item["status"] == "SUCCEEDED"
        assert [image["url"] for image in item["images"]] == [image.url for image in reports[0].images]
