"""Tests the checks of a history: each test violates one guarantee in an otherwise valid history."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from tests.searches.soak.callers import Delivery
from tests.searches.soak.checks import check_history
from tests.searches.soak.history import Change, Event, Handling, History, ImageRecord, Put, Run, TaskRecord
from tests.searches.soak.reported_state import RUNNING, ReportedState
from tests.searches.soak.valid_evidence import RANKS

TASK = "flux-kontext#task12345"
PATH = "/images/flux-kontext/task12345/result-0.png"
KEY = "images/flux-kontext/task12345/result-0.png"
SHA256 = hashlib.sha256(b"the image").hexdigest()
OTHER_SHA256 = hashlib.sha256(b"another image").hexdigest()

SUCCESS = ReportedState("SUCCEEDED", (PATH,))
FALSE_SUCCESS = ReportedState("SUCCEEDED", ("/strange/result-0.png",))
FAILURE = ReportedState("FAILED", reason="INTERNAL")
FINAL = {"TIMED_OUT", "FAILED", "UNCONFIRMED", "INCOMPLETE", "ARCHIVED"}


def record(
    status: str,
    reported: ReportedState | None = None,
    *,
    state: str = "PENDING",
    reported_by: str | None = "callback",
    is_confirmed: bool = False,
    conflicts: Sequence[ReportedState] = (),
) -> TaskRecord:
    reported = reported or (SUCCESS if RANKS[status] >= 30 else ReportedState(status))
    is_stored = state == "ARCHIVED"
    images = tuple(
        ImageRecord(path, state, KEY if is_stored else None, SHA256 if is_stored else None) for path in reported.paths
    )
    return TaskRecord(
        reported, status, RANKS[status], reported_by, is_confirmed, images, tuple(conflicts), has_request=False
    )


def delivery(reported: ReportedState, at: float, *, status: int | None = 200, is_authorized: bool = True) -> Delivery:
    return Delivery(TASK, reported, "no fault", 1, at, at + 0.5, status, is_authorized=is_authorized)


def history(
    steps: Sequence[tuple[float, str, TaskRecord | None]],
    *,
    deliveries: Sequence[Delivery] = (),
    provider_reports: dict[ReportedState, float] | None = None,
    puts: Sequence[tuple[float, str]] = (),
    events: Sequence[Event] | None = None,
    runs: Sequence[Run] = (),
) -> History:
    """`steps`: time, writer and result of each write; `puts`: time and SHA-256 of each object at KEY."""
    changes = []
    before = None
    for number, (at, writer, after) in enumerate(steps):
        changes.append(Change(TASK, at, writer, before, after, str(number)))
        before = after
    return History(
        changes=changes,
        puts=[Put(KEY, at, "ArchiveImagesFunction", base64.b64encode(bytes.fromhex(sha)).decode()) for at, sha in puts],
        deliveries=list(deliveries),
        provider_reports={(TASK, reported): at for reported, at in (provider_reports or {}).items()},
        events=list(_events(changes) if events is None else events),
        runs=list(runs),
    )


def _events(changes: Sequence[Change]) -> Iterator[Event]:
    """Yields an event for each change to a final status."""
    for change in changes:
        before = change.before.status if change.before else None
        if change.after and change.after.status in FINAL and change.after.status != before:
            status, changed_at = change.after.status, change.after.updated_at or ""
            yield Event(TASK, status, f"id of {status} at {changed_at}", changed_at, change.at + 0.5)


REGISTERED = (1.0, "", record("PENDING", reported_by=None))
CALLED_BACK = (2.1, "ReceiveCallbackFunction", record("SUCCEEDED"))
ARCHIVED = (3.0, "ArchiveImagesFunction", record("ARCHIVED", state="ARCHIVED"))
CALLBACK = delivery(SUCCESS, 2.0)
PUT = (2.9, SHA256)


def violated_guarantees(found: History, images: dict[str, str] | None = None) -> list[str]:
    return [violation.guarantee for violation in check_history(found, {PATH: SHA256} if images is None else images)]


def test_a_valid_history_has_no_violation() -> None:
    assert violated_guarantees(history([REGISTERED, CALLED_BACK, ARCHIVED], deliveries=[CALLBACK], puts=[PUT])) == []


def test_corrected_false_reports_are_no_violation() -> None:
    deliveries = [delivery(FALSE_SUCCESS, 2.0), delivery(FAILURE, 6.0), delivery(SUCCESS, 7.0), delivery(SUCCESS, 8.0)]
    found = history(
        [
            REGISTERED,
            (2.1, "ReceiveCallbackFunction", record("SUCCEEDED", FALSE_SUCCESS)),
            (3.0, "ArchiveImagesFunction", record("PENDING", reported_by=None, conflicts=[FALSE_SUCCESS])),
            (4.0, "PollTasksFunction", record("SUCCEEDED", reported_by="poll", conflicts=[FALSE_SUCCESS])),
            (5.0, "ArchiveImagesFunction", record("ARCHIVED", state="ARCHIVED", conflicts=[FALSE_SUCCESS])),
            (6.1, "ReceiveCallbackFunction", record("ARCHIVED", state="ARCHIVED", conflicts=[FALSE_SUCCESS, FAILURE])),
        ],
        deliveries=deliveries,
        provider_reports={RUNNING: 2.9, SUCCESS: 3.9},
        puts=[(4.9, SHA256)],
    )

    assert violated_guarantees(found) == []


def test_a_redrive_may_restart_archiving_of_an_incomplete_task() -> None:
    given_up = (3.0, "ArchiveImagesFunction", record("INCOMPLETE", state="EXPIRED"))
    reopened = (4.0, "", record("SUCCEEDED"))
    again = (5.0, "ArchiveImagesFunction", record("ARCHIVED", state="ARCHIVED"))
    steps = [REGISTERED, CALLED_BACK, given_up, reopened, again]

    assert violated_guarantees(history(steps, deliveries=[CALLBACK], puts=[(4.9, SHA256)])) == []


@pytest.mark.parametrize(
    ("reported_by", "is_confirmed", "confirmed_at", "violated"),
    [
        ("callback", True, 3.5, []),
        ("callback", True, 4.5, ["the status rank never decreases"]),
        ("callback", False, 3.5, ["the status rank never decreases"]),
        ("poll", False, 3.5, []),
        ("poll", False, 4.5, ["the status rank never decreases"]),
    ],
)
def test_a_result_is_unconfirmed_until_the_provider_reports_it(
    reported_by: str, is_confirmed: bool, confirmed_at: float, violated: list[str]
) -> None:
    unconfirmed = (3.0, "ArchiveImagesFunction", record("UNCONFIRMED"))
    confirmed = (4.0, "PollTasksFunction", record("SUCCEEDED", reported_by=reported_by, is_confirmed=is_confirmed))
    stored = record("ARCHIVED", state="ARCHIVED", reported_by=reported_by, is_confirmed=is_confirmed)
    archived = (5.0, "ArchiveImagesFunction", stored)
    found = history(
        [REGISTERED, CALLED_BACK, unconfirmed, confirmed, archived],
        deliveries=[CALLBACK],
        provider_reports={SUCCESS: confirmed_at},
        puts=[(4.9, SHA256)],
    )

    assert violated_guarantees(found) == violated


def test_a_redrive_may_restart_polling_of_a_timed_out_task() -> None:
    gave_up = (3.0, "PollTasksFunction", record("TIMED_OUT", reported_by="poll"))
    restarted = (4.0, "", record("PENDING", reported_by=None))

    assert violated_guarantees(history([REGISTERED, gave_up, restarted])) == []


@pytest.mark.parametrize("writer", ["", "PollTasksFunction"])
def test_a_succeeded_task_must_not_become_pending(writer: str) -> None:
    restarted = (4.0, writer, record("PENDING", reported_by=None))
    found = history([REGISTERED, CALLED_BACK, restarted], deliveries=[CALLBACK], provider_reports={RUNNING: 1.0})

    assert violated_guarantees(found) == ["the status rank never decreases"]


# ------------------------------------------------------------------------------------------------ acknowledgement


@pytest.mark.parametrize(
    ("steps", "lost"),
    [
        ([REGISTERED], SUCCESS),
        ([REGISTERED, CALLED_BACK], FAILURE),
        # Stored after the response: a crash in between would have lost the report.
        ([REGISTERED, (2.6, "PollTasksFunction", record("SUCCEEDED", reported_by="poll"))], SUCCESS),
    ],
)
def test_an_acknowledged_report_that_is_not_stored(
    steps: list[tuple[float, str, TaskRecord]], lost: ReportedState
) -> None:
    deliveries = [CALLBACK, delivery(lost, 2.0)] if lost is FAILURE else [CALLBACK]
    found = history(steps, deliveries=deliveries, provider_reports={SUCCESS: 2.5})

    assert violated_guarantees(found) == ["acknowledged callbacks are stored"]


@pytest.mark.parametrize("status", [None, 400, 401, 500, 503])
def test_a_report_that_was_not_acknowledged_need_not_be_stored(status: int | None) -> None:
    assert violated_guarantees(history([REGISTERED], deliveries=[delivery(SUCCESS, 2.0, status=status)])) == []


def test_reports_beyond_the_limit_of_conflicts_need_not_be_stored() -> None:
    conflicts = [ReportedState("SUCCEEDED", (f"/strange/{number}.png",)) for number in range(10)]
    full = (2.1, "ReceiveCallbackFunction", record("SUCCEEDED", conflicts=conflicts))
    deliveries = [CALLBACK, *(delivery(reported, 2.0) for reported in conflicts), delivery(FAILURE, 3.0)]

    assert violated_guarantees(history([REGISTERED, full], deliveries=deliveries)) == []


# ------------------------------------------------------------------------------------------------ status rank


def test_a_status_that_moves_down() -> None:
    down = (4.0, "ReceiveCallbackFunction", record("FAILED", FAILURE))
    deliveries = [CALLBACK, delivery(FAILURE, 3.9)]

    assert "the status rank never decreases" in violated_guarantees(
        history([REGISTERED, CALLED_BACK, down], deliveries=deliveries)
    )


@pytest.mark.parametrize(
    "before",
    [record("SUCCEEDED", reported_by="poll"), record("SUCCEEDED", is_confirmed=True)],
    ids=["reported by poll", "confirmed"],
)
def test_a_correction_of_a_result_that_the_provider_has_reported(before: TaskRecord) -> None:
    corrected = (4.0, "PollTasksFunction", record("FAILED", FAILURE, reported_by="poll", conflicts=[SUCCESS]))
    found = history(
        [REGISTERED, (2.1, "ReceiveCallbackFunction", before), corrected],
        deliveries=[CALLBACK],
        provider_reports={FAILURE: 3.9, SUCCESS: 2.0},
    )

    assert violated_guarantees(found) == ["the status rank never decreases"]


def test_a_correction_that_the_provider_has_not_reported() -> None:
    corrected = (4.0, "PollTasksFunction", record("FAILED", FAILURE, reported_by="poll", conflicts=[SUCCESS]))
    found = history([REGISTERED, CALLED_BACK, corrected], deliveries=[CALLBACK], provider_reports={FAILURE: 4.1})

    assert violated_guarantees(found) == ["the status rank never decreases", "all data has a source"]


def test_a_correction_without_an_entry_in_conflicts() -> None:
    corrected = (4.0, "PollTasksFunction", record("FAILED", FAILURE, reported_by="poll"))
    found = history([REGISTERED, CALLED_BACK, corrected], deliveries=[CALLBACK], provider_reports={FAILURE: 3.9})

    assert violated_guarantees(found) == ["the status rank never decreases"]


def test_a_removed_item() -> None:
    removed = (4.0, "ArchiveImagesFunction", None)

    assert violated_guarantees(history([REGISTERED, CALLED_BACK, removed], deliveries=[CALLBACK])) == [
        "the status rank never decreases"
    ]


# ------------------------------------------------------------------------------------------------ archived images


@pytest.mark.parametrize(
    ("puts", "images"),
    [
        ([], {PATH: SHA256}),
        ([(3.1, SHA256)], {PATH: SHA256}),
        ([(2.9, OTHER_SHA256)], {PATH: SHA256}),
        ([(2.9, SHA256)], {PATH: OTHER_SHA256}),
        ([(2.9, SHA256)], {}),
    ],
    ids=["never put", "put later", "other bytes put", "another image", "an image that no plan has"],
)
def test_archived_without_the_expected_object(puts: list[tuple[float, str]], images: dict[str, str]) -> None:
    found = history([REGISTERED, CALLED_BACK, ARCHIVED], deliveries=[CALLBACK], puts=puts)

    assert violated_guarantees(found, images) == ["ARCHIVED images are in the bucket"]


def test_archived_with_a_pending_image() -> None:
    found = history(
        [REGISTERED, CALLED_BACK, (3.0, "ArchiveImagesFunction", record("ARCHIVED"))], deliveries=[CALLBACK]
    )

    assert violated_guarantees(found) == ["ARCHIVED images are in the bucket"]


# ------------------------------------------------------------------------------------------------ source of data


@pytest.mark.parametrize(
    "deliveries",
    [
        [],
        [replace(CALLBACK, is_authorized=False, status=401)],
        [replace(CALLBACK, sent_at=2.2)],
        [delivery(FALSE_SUCCESS, 2.0, status=503)],
    ],
    ids=["never sent", "sent by an unauthorised client", "sent later", "another report sent"],
)
def test_a_result_without_a_source(deliveries: list[Delivery]) -> None:
    assert violated_guarantees(history([REGISTERED, CALLED_BACK], deliveries=deliveries)) == ["all data has a source"]


def test_a_conflict_without_a_source() -> None:
    without_source = (2.5, "ReceiveCallbackFunction", record("SUCCEEDED", conflicts=[FALSE_SUCCESS]))

    assert violated_guarantees(history([REGISTERED, CALLED_BACK, without_source], deliveries=[CALLBACK])) == [
        "all data has a source"
    ]


def test_a_pending_item_without_registration() -> None:
    found = history([(1.0, "ReceiveCallbackFunction", record("PENDING", reported_by=None))])

    assert violated_guarantees(found) == ["all data has a source"]


# ------------------------------------------------------------------------------------------------ conflicts, writes


def test_a_removed_conflict() -> None:
    with_conflict = (2.5, "ReceiveCallbackFunction", record("SUCCEEDED", conflicts=[FAILURE]))
    without_conflict = (3.0, "ArchiveImagesFunction", record("ARCHIVED", state="ARCHIVED"))
    found = history(
        [REGISTERED, CALLED_BACK, with_conflict, without_conflict],
        deliveries=[CALLBACK, delivery(FAILURE, 2.4)],
        puts=[PUT],
    )

    assert violated_guarantees(found) == ["conflicts are never removed"]


def test_an_object_that_is_put_twice() -> None:
    found = history([REGISTERED, CALLED_BACK, ARCHIVED], deliveries=[CALLBACK], puts=[(2.8, SHA256), PUT])

    assert violated_guarantees(found) == ["results are written once"]


def test_a_task_that_succeeds_twice() -> None:
    pending = (2.5, "PollTasksFunction", record("PENDING", reported_by=None))
    found = history([REGISTERED, CALLED_BACK, pending, CALLED_BACK], deliveries=[CALLBACK])
    jumped = replace(found.changes[3], before=record("TIMED_OUT"))
    found.changes[2:] = [jumped]

    assert violated_guarantees(found) == ["results are written once"]


# ------------------------------------------------------------------------------------------------ events, messages


@pytest.mark.parametrize(
    ("first_at", "second_at"),
    [(3.5, 4.5), (9.0, 9.5), (4.6, 4.5)],
    ids=["during each run", "late, by a killed run", "after that of the next run"],
)
def test_an_event_may_be_published_again_by_a_run_after_one_that_failed(first_at: float, second_at: float) -> None:
    first = Event(TASK, "ARCHIVED", "id", "", first_at, "one", "first call")
    second = Event(TASK, "ARCHIVED", "id", "", second_at, "two", "second call")
    run = Run("PublishEventsFunction", 3.4, 3.6, sandbox="one", started=3.4)
    next_run = Run("PublishEventsFunction", 4.4, 4.6, has_failed=False, sandbox="two", started=4.4)

    def violated(*runs: Run, again: Event = second) -> list[str]:
        steps = [REGISTERED, CALLED_BACK, ARCHIVED]
        found = history(steps, deliveries=[CALLBACK], puts=[PUT], events=[first, again], runs=runs)
        return violated_guarantees(found)

    assert violated(run, next_run) == []
    successful = replace(run, has_failed=False)
    for runs in ([successful, next_run], [replace(run, ended=5.0), next_run], [run], [next_run], []):
        assert violated(*runs) == ["an event is published once"]
    # By the same run, which fails later.
    assert violated(run, next_run, again=replace(second, sandbox="one")) == ["an event is published once"]
    # The SDK had no response to the same call in time.
    assert violated(successful, again=replace(second, sandbox="one", call=first.call)) == []


def test_an_event_without_a_change() -> None:
    events = [Event(TASK, "FAILED", "id", "", 1.5)]

    assert violated_guarantees(history([REGISTERED], events=events)) == ["all data has a source"]


def test_a_message_that_two_runs_handle_at_once() -> None:
    def violated(second_begun: float, message_id: str = "one") -> list[str]:
        found = history([REGISTERED])
        found.handlings = [Handling(TASK, "one", 1.0, 2.0), Handling(TASK, message_id, second_begun, 3.0)]
        return violated_guarantees(found)

    assert violated(2.0) == violated(1.5, "another") == []
    assert violated(1.5) == ["one run per message at a time"]
