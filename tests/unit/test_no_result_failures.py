"""Failures of tasks whose polling ended without a result: they contain the provider's last answer."""

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
from catchlight.models import MAX_MESSAGE_LENGTH, FailureReason, LastAnswer, Reporter, TaskReport, TaskStatus
from catchlight.polling.no_result import no_result_failure, unconfirmed_failure
from catchlight.tasks.task import Task

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
UNCONFIRMED_CALLBACK = "a callback came, but its provider did not confirm it: "
PENDING = Task(task="acedata#a", status=TaskStatus.PENDING)


def answered(answer: LastAnswer, remark: str = "") -> TaskReport:
    report: dict[str, Any] = {"provider": "acedata", "task_id": "a", "status": TaskStatus.PENDING}
    return TaskReport(**report, reported_by=Reporter.POLL, reported_at=NOW, answer=answer, remark=remark)


@pytest.mark.parametrize(
    ("answer", "statement"),
    [
        (LastAnswer.STILL_RUNNING, "its provider still reports the task as running"),
        (LastAnswer.NOT_FOUND, "its provider does not know the task"),
    ],
)
def test_the_message_contains_the_providers_last_answer(answer: LastAnswer, statement: str) -> None:
    failure = no_result_failure(PENDING, answered(answer), None, after_hours=6)

    assert (failure.reason, failure.code, failure.last_answer) == (FailureReason.NO_RESULT, None, answer)
    assert failure.message == (
        f"no callback and no result after 6 hours of polling: {statement}; a later result is still recorded"
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
def test_after_an_error_the_message_says_that_the_result_is_unknown(error: Exception, answer: LastAnswer) -> None:
    failure = no_result_failure(PENDING, None, error, after_hours=0.5)

    assert failure.last_answer is answer
    assert failure.message.startswith(
        "no callback came, and after 0.5 hours of polling it is unknown whether there is a result: "
    )
    assert failure.message.endswith(": answered 401; a later result is still recorded")


def test_an_unexpected_error_is_not_quoted() -> None:
    failure = no_result_failure(PENDING, None, KeyError("s3cret"), after_hours=6)

    assert failure.last_answer is LastAnswer.UNREADABLE
    assert "s3cret" not in failure.message


def test_without_a_request_the_last_answer_says_so() -> None:
    assert no_result_failure(PENDING, None, None, after_hours=6).last_answer is LastAnswer.NOT_ASKED


def test_the_message_says_why_a_record_could_not_be_read() -> None:
    failure = no_result_failure(
        PENDING, answered(LastAnswer.UNREADABLE, "response: should be an object"), None, after_hours=6
    )

    assert failure.last_answer is LastAnswer.UNREADABLE
    assert "could not be read: response: should be an object;" in failure.message


@pytest.mark.parametrize(
    "attributes",
    [
        {"deliveries": 1},
        {"hintedAt": "2026-01-31T11:00:00Z"},
        {"conflicts": ({"reportedBy": "callback", "reportedAt": NOW, "status": "SUCCEEDED"},)},
    ],
)
def test_the_message_mentions_a_callback_that_was_not_confirmed(attributes: dict[str, Any]) -> None:
    task = Task.model_validate({"task": "acedata#a", "status": "PENDING", **attributes})

    unconfirmed = no_result_failure(task, answered(LastAnswer.STILL_RUNNING), None, after_hours=6)
    refused = no_result_failure(task, None, ProviderRefusedError("answered 401"), after_hours=6)

    assert (unconfirmed.last_answer, refused.last_answer) == (LastAnswer.UNCONFIRMED, LastAnswer.REFUSED)
    for failure in (unconfirmed, refused):
        reported = "a callback or a poll reported a success without a result: "
        assert failure.message.startswith(reported if "hintedAt" in attributes else UNCONFIRMED_CALLBACK)


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
def test_the_failure_of_an_unconfirmed_task_has_a_reason(error: Exception, text: str) -> None:
    failure = unconfirmed_failure(error)

    assert failure.message.startswith("a callback reported a success, but its provider has not confirmed it: ")
    assert failure.message.endswith(text)


def test_a_long_message_is_cut_before_its_last_clause() -> None:
    failure = no_result_failure(PENDING, None, ProviderUnavailableError("x" * 2000), after_hours=6)

    assert len(failure.message) == MAX_MESSAGE_LENGTH
    assert failure.message.endswith("; a later result is still recorded")
