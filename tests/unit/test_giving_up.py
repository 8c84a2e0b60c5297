"""The failure of a task that polling has given up states the provider's last answer, and nothing untrue."""

from datetime import UTC, datetime
from typing import Any

import pytest

from catchlight.errors import (
    ProviderBusyError,
    ProviderRefusedError,
    ProviderUnavailableError,
    ProviderUnreachableError,
    RequestRefusedError,
    SettingsError,
    UnconfirmedError,
    UnreadableAnswerError,
)
from catchlight.models import MAX_MESSAGE_LENGTH, FailureReason, LastAnswer, Reporter, Task, TaskReport, TaskStatus
from catchlight.polling.giving_up import no_result_failure, not_confirmed

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
CAME = "a callback came, but its provider did not confirm it: "
PENDING = Task(task="acedata#a", status=TaskStatus.PENDING)


def answered(answer: LastAnswer, remark: str = "") -> TaskReport:
    report: dict[str, Any] = {"provider": "acedata", "task_id": "a", "status": TaskStatus.PENDING}
    return TaskReport(**report, reported_by=Reporter.POLL, reported_at=NOW, answer=answer, remark=remark)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (LastAnswer.STILL_RUNNING, "its provider still reports the task as running"),
        (LastAnswer.NOT_FOUND, "its provider does not know the task"),
    ],
)
def test_no_callback_and_no_result_is_said_where_that_is_so(answer: LastAnswer, said: str) -> None:
    failure = no_result_failure(PENDING, answered(answer), None, after_hours=6)

    assert (failure.reason, failure.code, failure.last_answer) == (FailureReason.NO_RESULT, None, answer)
    assert failure.message == (
        f"no callback and no result after 6 hours of polling: {said}; a later result is still recorded"
    )


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (ProviderRefusedError("answered 401"), LastAnswer.REFUSED),
        (SettingsError("answered 401"), LastAnswer.REFUSED),
        (RequestRefusedError("answered 401"), LastAnswer.REQUEST_REFUSED),
        (ProviderBusyError("answered 401"), LastAnswer.BUSY),
        (UnreadableAnswerError("answered 401"), LastAnswer.UNREADABLE),
        (ProviderUnavailableError("answered 401"), LastAnswer.NO_ANSWER),
        (ProviderUnreachableError("answered 401"), LastAnswer.NO_ANSWER),
    ],
)
def test_an_error_leaves_it_open_whether_there_is_a_result(error: Exception, answer: LastAnswer) -> None:
    failure = no_result_failure(PENDING, None, error, after_hours=0.5)

    assert failure.last_answer is answer
    assert failure.message.startswith(
        "no callback came, and after 0.5 hours of polling it is unknown whether there is a result: "
    )
    assert failure.message.endswith(": answered 401; a later result is still recorded")


def test_a_bug_is_not_quoted() -> None:
    failure = no_result_failure(PENDING, None, KeyError("s3cret"), after_hours=6)

    assert failure.last_answer is LastAnswer.UNREADABLE
    assert "s3cret" not in failure.message


def test_without_a_request_that_is_said() -> None:
    assert no_result_failure(PENDING, None, None, after_hours=6).last_answer is LastAnswer.NOT_ASKED


def test_a_record_that_could_not_be_read_says_why() -> None:
    failure = no_result_failure(
        PENDING, answered(LastAnswer.UNREADABLE, "response: should be an object"), None, after_hours=6
    )

    assert failure.last_answer is LastAnswer.UNREADABLE
    assert "could not be read: response: should be an object;" in failure.message


@pytest.mark.parametrize(
    "heard",
    [
        {"deliveries": 1},
        {"hintedAt": "2026-01-31T11:00:00Z"},
        {"conflicts": ({"reportedBy": "callback", "reportedAt": NOW, "status": "SUCCEEDED"},)},
    ],
)
def test_a_callback_that_was_not_confirmed_is_not_denied(heard: dict[str, Any]) -> None:
    task = Task.model_validate({"task": "acedata#a", "status": "PENDING", **heard})

    unconfirmed = no_result_failure(task, answered(LastAnswer.STILL_RUNNING), None, after_hours=6)
    refused = no_result_failure(task, None, ProviderRefusedError("answered 401"), after_hours=6)

    assert (unconfirmed.last_answer, refused.last_answer) == (LastAnswer.UNCONFIRMED, LastAnswer.REFUSED)
    for failure in (unconfirmed, refused):
        began = "a callback or a poll reported a success without a result: " if "hintedAt" in heard else CAME
        assert failure.message.startswith(began)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ProviderRefusedError("answered 401"), ", or no key is configured: answered 401"),
        (KeyError("secret"), ": the last answer of its provider could not be read"),
        (
            UnconfirmedError("its provider still reports the task as running"),
            ": its provider still reports the task as running",
        ),
    ],
)
def test_an_unconfirmed_task_says_why(error: Exception, text: str) -> None:
    failure = not_confirmed(error)

    assert failure.message.startswith("a callback reported a success, but its provider has not confirmed it: ")
    assert failure.message.endswith(text)


def test_long_words_are_cut_and_the_advice_stays() -> None:
    failure = no_result_failure(PENDING, None, ProviderUnavailableError("x" * 2000), after_hours=6)

    assert len(failure.message) == MAX_MESSAGE_LENGTH
    assert failure.message.endswith("; a later result is still recorded")
