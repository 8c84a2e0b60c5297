"""The checker finds what is wrong: every promise is broken once, in a history that is right otherwise."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from tests.searches.soak.callers import Delivery
from tests.searches.soak.checks import check_history
from tests.searches.soak.finished_world import RANKS
from tests.searches.soak.history import Change, Event, Handling, History, ImageRecord, Put, Run, TaskRecord
from tests.searches.soak.reported_state import RUNNING, ReportedState

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


def delivery(says: ReportedState, at: float, *, status: int | None = 200, is_authorized: bool = True) -> Delivery:
    return Delivery(TASK, says, "as it should be", 1, at, at + 0.5, status, is_authorized=is_authorized)


def history(
    steps: Sequence[tuple[float, str, TaskRecord | None]],
    *,
    deliveries: Sequence[Delivery] = (),
    said: dict[ReportedState, float] | None = None,
    puts: Sequence[tuple[float, str]] = (),
    events: Sequence[Event] | None = None,
    runs: Sequence[Run] = (),
) -> History:
    """Steps are the times, writers and results of writes; puts the times and SHA-256 of objects under KEY."""
    changes = []
    before = None
    for number, (at, writer, after) in enumerate(steps):
        changes.append(Change(TASK, at, writer, before, after, str(number)))
        before = after
    return History(
        changes=changes,
        puts=[Put(KEY, at, "ArchiveImagesFunction", base64.b64encode(bytes.fromhex(sha)).decode()) for at, sha in puts],
        deliveries=list(deliveries),
        said={(TASK, reported): at for reported, at in (said or {}).items()},
        events=list(_events(changes) if events is None else events),
        runs=list(runs),
    )


def _events(changes: Sequence[Change]) -> Iterator[Event]:
    """Yields an event for each arrival at a final status."""
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


def promises_broken(found: History, images: dict[str, str] | None = None) -> list[str]:
    return [violation.promise for violation in check_history(found, {PATH: SHA256} if images is None else images)]


def test_a_history_in_which_all_is_right() -> None:
    assert promises_broken(history([REGISTERED, CALLED_BACK, ARCHIVED], deliveries=[CALLBACK], puts=[PUT])) == []


def test_a_history_of_lies_that_were_found_out() -> None:
    lies = [delivery(FALSE_SUCCESS, 2.0), delivery(FAILURE, 6.0), delivery(SUCCESS, 7.0), delivery(SUCCESS, 8.0)]
    found = history(
        [
            REGISTERED,
            (2.1, "ReceiveCallbackFunction", record("SUCCEEDED", FALSE_SUCCESS)),
            (3.0, "ArchiveImagesFunction", record("PENDING", reported_by=None, conflicts=[FALSE_SUCCESS])),
            (4.0, "PollTasksFunction", record("SUCCEEDED", reported_by="poll", conflicts=[FALSE_SUCCESS])),
            (5.0, "ArchiveImagesFunction", record("ARCHIVED", state="ARCHIVED", conflicts=[FALSE_SUCCESS])),
            (6.1, "ReceiveCallbackFunction", record("ARCHIVED", state="ARCHIVED", conflicts=[FALSE_SUCCESS, FAILURE])),
        ],
        deliveries=lies,
        said={RUNNING: 2.9, SUCCESS: 3.9},
        puts=[(4.9, SHA256)],
    )

    assert promises_broken(found) == []


def test_a_redrive_may_try_again_what_was_given_up() -> None:
    given_up = (3.0, "ArchiveImagesFunction", record("INCOMPLETE", state="EXPIRED"))
    reopened = (4.0, "", record("SUCCEEDED"))
    again = (5.0, "ArchiveImagesFunction", record("ARCHIVED", state="ARCHIVED"))
    steps = [REGISTERED, CALLED_BACK, given_up, reopened, again]

    assert promises_broken(history(steps, deliveries=[CALLBACK], puts=[(4.9, SHA256)])) == []


@pytest.mark.parametrize(
    ("reported_by", "is_confirmed", "said_at", "broken"),
    [
        ("callback", True, 3.5, []),
        ("callback", True, 4.5, ["statuses only move up"]),
        ("callback", False, 3.5, ["statuses only move up"]),
        ("poll", False, 3.5, []),
        ("poll", False, 4.5, ["statuses only move up"]),
    ],
)
def test_a_result_is_unconfirmed_until_its_service_says_the_same(
    reported_by: str, is_confirmed: bool, said_at: float, broken: list[str]
) -> None:
    unconfirmed = (3.0, "ArchiveImagesFunction", record("UNCONFIRMED"))
    confirmed = (4.0, "PollTasksFunction", record("SUCCEEDED", reported_by=reported_by, is_confirmed=is_confirmed))
    stored = record("ARCHIVED", state="ARCHIVED", reported_by=reported_by, is_confirmed=is_confirmed)
    archived = (5.0, "ArchiveImagesFunction", stored)
    found = history(
        [REGISTERED, CALLED_BACK, unconfirmed, confirmed, archived],
        deliveries=[CALLBACK],
        said={SUCCESS: said_at},
        puts=[(4.9, SHA256)],
    )

    assert promises_broken(found) == broken


def test_a_redrive_may_poll_again_for_what_timed_out() -> None:
    gave_up = (3.0, "PollTasksFunction", record("TIMED_OUT", reported_by="poll"))
    anew = (4.0, "", record("PENDING", reported_by=None))

    assert promises_broken(history([REGISTERED, gave_up, anew])) == []


@pytest.mark.parametrize("writer", ["", "PollTasksFunction"])
def test_nobody_takes_back_what_succeeded(writer: str) -> None:
    anew = (4.0, writer, record("PENDING", reported_by=None))
    found = history([REGISTERED, CALLED_BACK, anew], deliveries=[CALLBACK], said={RUNNING: 1.0})

    assert promises_broken(found) == ["statuses only move up"]


# ------------------------------------------------------------------------------------------------ acknowledged


@pytest.mark.parametrize(
    ("steps", "lost"),
    [
        ([REGISTERED], SUCCESS),
        ([REGISTERED, CALLED_BACK], FAILURE),
        # Known, but only after it was acknowledged: a crash in between would have lost it.
        ([REGISTERED, (2.6, "PollTasksFunction", record("SUCCEEDED", reported_by="poll"))], SUCCESS),
    ],
)
def test_what_is_acknowledged_and_not_known(steps: list[tuple[float, str, TaskRecord]], lost: ReportedState) -> None:
    deliveries = [CALLBACK, delivery(lost, 2.0)] if lost is FAILURE else [CALLBACK]
    found = history(steps, deliveries=deliveries, said={SUCCESS: 2.5})

    assert promises_broken(found) == ["what is acknowledged is known"]


@pytest.mark.parametrize("status", [None, 400, 401, 500, 503])
def test_what_was_not_acknowledged_need_not_be_known(status: int | None) -> None:
    assert promises_broken(history([REGISTERED], deliveries=[delivery(SUCCESS, 2.0, status=status)])) == []


def test_evidence_beyond_what_is_kept_need_not_be_known() -> None:
    evidence = [ReportedState("SUCCEEDED", (f"/strange/{number}.png",)) for number in range(10)]
    full = (2.1, "ReceiveCallbackFunction", record("SUCCEEDED", conflicts=evidence))
    deliveries = [CALLBACK, *(delivery(reported, 2.0) for reported in evidence), delivery(FAILURE, 3.0)]

    assert promises_broken(history([REGISTERED, full], deliveries=deliveries)) == []


# ------------------------------------------------------------------------------------------------ only up


def test_a_status_that_moves_down() -> None:
    down = (4.0, "ReceiveCallbackFunction", record("FAILED", FAILURE))
    deliveries = [CALLBACK, delivery(FAILURE, 3.9)]

    assert "statuses only move up" in promises_broken(history([REGISTERED, CALLED_BACK, down], deliveries=deliveries))


@pytest.mark.parametrize(
    "before",
    [record("SUCCEEDED", reported_by="poll"), record("SUCCEEDED", is_confirmed=True)],
    ids=["of a poll", "confirmed"],
)
def test_a_correction_of_what_the_provider_itself_has_said(before: TaskRecord) -> None:
    corrected = (4.0, "PollTasksFunction", record("FAILED", FAILURE, reported_by="poll", conflicts=[SUCCESS]))
    found = history(
        [REGISTERED, (2.1, "ReceiveCallbackFunction", before), corrected],
        deliveries=[CALLBACK],
        said={FAILURE: 3.9, SUCCESS: 2.0},
    )

    assert promises_broken(found) == ["statuses only move up"]


def test_a_correction_that_the_provider_has_not_said() -> None:
    corrected = (4.0, "PollTasksFunction", record("FAILED", FAILURE, reported_by="poll", conflicts=[SUCCESS]))
    found = history([REGISTERED, CALLED_BACK, corrected], deliveries=[CALLBACK], said={FAILURE: 4.1})

    assert promises_broken(found) == ["statuses only move up", "nothing is made up"]


def test_a_correction_that_keeps_no_evidence() -> None:
    corrected = (4.0, "PollTasksFunction", record("FAILED", FAILURE, reported_by="poll"))
    found = history([REGISTERED, CALLED_BACK, corrected], deliveries=[CALLBACK], said={FAILURE: 3.9})

    assert promises_broken(found) == ["statuses only move up"]


def test_a_removed_item() -> None:
    gone = (4.0, "ArchiveImagesFunction", None)

    assert promises_broken(history([REGISTERED, CALLED_BACK, gone], deliveries=[CALLBACK])) == ["statuses only move up"]


# ------------------------------------------------------------------------------------------------ bytes


@pytest.mark.parametrize(
    ("puts", "images"),
    [
        ([], {PATH: SHA256}),
        ([(3.1, SHA256)], {PATH: SHA256}),
        ([(2.9, OTHER_SHA256)], {PATH: SHA256}),
        ([(2.9, SHA256)], {PATH: OTHER_SHA256}),
        ([(2.9, SHA256)], {}),
    ],
    ids=["never put", "put later", "other bytes put", "another image", "an image that nobody made"],
)
def test_archived_without_the_bytes(puts: list[tuple[float, str]], images: dict[str, str]) -> None:
    found = history([REGISTERED, CALLED_BACK, ARCHIVED], deliveries=[CALLBACK], puts=puts)

    assert promises_broken(found, images) == ["ARCHIVED means bytes"]


def test_archived_with_an_image_that_is_not() -> None:
    found = history(
        [REGISTERED, CALLED_BACK, (3.0, "ArchiveImagesFunction", record("ARCHIVED"))], deliveries=[CALLBACK]
    )

    assert promises_broken(found) == ["ARCHIVED means bytes"]


# ------------------------------------------------------------------------------------------------ made up


@pytest.mark.parametrize(
    "deliveries",
    [
        [],
        [replace(CALLBACK, is_authorized=False, status=401)],
        [replace(CALLBACK, sent_at=2.2)],
        [delivery(FALSE_SUCCESS, 2.0, status=503)],
    ],
    ids=["by nobody", "by an unauthorised client", "later", "otherwise"],
)
def test_news_that_nobody_has_sent(deliveries: list[Delivery]) -> None:
    assert promises_broken(history([REGISTERED, CALLED_BACK], deliveries=deliveries)) == ["nothing is made up"]


def test_a_conflict_that_nobody_has_sent() -> None:
    made_up = (2.5, "ReceiveCallbackFunction", record("SUCCEEDED", conflicts=[FALSE_SUCCESS]))

    assert promises_broken(history([REGISTERED, CALLED_BACK, made_up], deliveries=[CALLBACK])) == ["nothing is made up"]


def test_an_item_that_nobody_registered() -> None:
    found = history([(1.0, "ReceiveCallbackFunction", record("PENDING", reported_by=None))])

    assert promises_broken(found) == ["nothing is made up"]


# ------------------------------------------------------------------------------------------------ evidence, once


def test_evidence_that_is_taken_away() -> None:
    kept = (2.5, "ReceiveCallbackFunction", record("SUCCEEDED", conflicts=[FAILURE]))
    dropped = (3.0, "ArchiveImagesFunction", record("ARCHIVED", state="ARCHIVED"))
    found = history([REGISTERED, CALLED_BACK, kept, dropped], deliveries=[CALLBACK, delivery(FAILURE, 2.4)], puts=[PUT])

    assert promises_broken(found) == ["evidence stays"]


def test_an_object_that_is_put_twice() -> None:
    found = history([REGISTERED, CALLED_BACK, ARCHIVED], deliveries=[CALLBACK], puts=[(2.8, SHA256), PUT])

    assert promises_broken(found) == ["once"]


def test_a_task_that_succeeds_twice() -> None:
    forgotten = (2.5, "PollTasksFunction", record("PENDING", reported_by=None))
    found = history([REGISTERED, CALLED_BACK, forgotten, CALLED_BACK], deliveries=[CALLBACK])
    jumped = replace(found.changes[3], before=record("TIMED_OUT"))
    found.changes[2:] = [jumped]

    assert promises_broken(found) == ["once"]


# ------------------------------------------------------------------------------------------------ events, messages


def test_an_event_may_be_published_again_by_a_run_after_one_that_failed() -> None:
    first = Event(TASK, "ARCHIVED", "id", "", 3.5)
    events = [first, replace(first, at=4.5)]
    failed, right = Run("PublishEventsFunction", 3.4, 3.6), Run("PublishEventsFunction", 3.4, 3.6, has_failed=False)
    steps = [REGISTERED, CALLED_BACK, ARCHIVED]

    def broken(runs: list[Run]) -> list[str]:
        return promises_broken(history(steps, deliveries=[CALLBACK], puts=[PUT], events=events, runs=runs))

    assert broken([failed]) == []
    assert broken([right]) == broken([replace(failed, function="ArchiveImagesFunction")])
    assert broken([right]) == broken([replace(failed, ended=5.0)]) == ["an event is published once"]


def test_an_event_of_no_change() -> None:
    events = [Event(TASK, "FAILED", "id", "", 1.5)]

    assert promises_broken(history([REGISTERED], events=events)) == ["nothing is made up"]


def test_a_message_that_two_runs_have() -> None:
    def broken(second_begun: float, message_id: str = "one") -> list[str]:
        found = history([REGISTERED])
        found.handlings = [Handling(TASK, "one", 1.0, 2.0), Handling(TASK, message_id, second_begun, 3.0)]
        return promises_broken(found)

    assert broken(2.0) == broken(1.5, "another") == []
    assert broken(1.5) == ["one run at a time"]
