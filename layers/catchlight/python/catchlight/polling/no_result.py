"""Describes why polling of a task has ended without a result, by the last answer of its provider."""

from collections.abc import Mapping

from catchlight.errors import (
    ProviderBusyError,
    ProviderError,
    ProviderRefusedError,
    RequestRefusedError,
    SettingsError,
    UnconfirmedError,
    UnreadableAnswerError,
)
from catchlight.models import MAX_MESSAGE_LENGTH, Failure, FailureReason, LastAnswer, Reporter, TaskReport
from catchlight.tasks.task import Task

_ADVICE = "; a later result is still recorded"

_ANSWERS: Mapping[LastAnswer, str] = {
    LastAnswer.STILL_RUNNING: "its provider still reports the task as running",
    LastAnswer.NOT_FOUND: "its provider does not know the task",
    LastAnswer.ORIGINAL_ONLY: "its provider reports a success with the original image only",
    LastAnswer.UNREADABLE: "the last answer of its provider could not be read",
    LastAnswer.REFUSED: "its provider refuses the key or the account, or no key is configured",
    LastAnswer.REQUEST_REFUSED: "its provider refuses requests for this task id",
    LastAnswer.BUSY: "its provider was busy at the last request",
    LastAnswer.NO_ANSWER: "its provider did not answer the last request, or answered with an error",
    LastAnswer.NOT_ASKED: "the last round of polling had no time to request its status",
}
# Answers in which the provider itself reports that it has no result.
_WITHOUT_RESULT = (LastAnswer.STILL_RUNNING, LastAnswer.NOT_FOUND, LastAnswer.ORIGINAL_ONLY)


def no_result_failure(task: Task, report: TaskReport | None, error: Exception | None, *, after_hours: float) -> Failure:
    """Returns the failure of a task for which polling gives up.

    `report` or `error` is the outcome of the last request for its status; both are None if no request was sent. The
    message contains "no callback and no result" only if no callback came and the provider itself reports no result.
    """
    answer = report.answer if report else _answer_of(error)
    # Polling for an unregistered task that its provider does not know ends after minutes.
    duration = f"{after_hours:g} hours" if after_hours >= 0.5 else f"{after_hours * 60:.0f} minutes"
    polled = f"after {duration} of polling"
    detail = _detail_of(error) if error else report.remark if report else ""
    reason = _ANSWERS[answer] + (f": {detail}" if detail else "")
    if task.hinted_at:
        text = f"a callback or a poll reported a success without a result: {polled}, {reason}"
        answer = LastAnswer.UNCONFIRMED if answer in _WITHOUT_RESULT else answer
    elif had_callback(task):
        text = f"a callback came, but its provider did not confirm it: {polled}, {reason}"
        answer = LastAnswer.UNCONFIRMED if answer in _WITHOUT_RESULT else answer
    elif answer in _WITHOUT_RESULT:
        text = f"no callback and no result {polled}: {reason}"
    else:
        text = f"no callback came, and {polled} it is unknown whether there is a result: {reason}"
    message = text[: MAX_MESSAGE_LENGTH - len(_ADVICE)] + _ADVICE
    return Failure(reason=FailureReason.NO_RESULT, message=message, last_answer=answer)


def unconfirmed_failure(error: Exception) -> Failure:
    """Returns the failure of an UNCONFIRMED task. `error` is the outcome of the last request for its status."""
    is_without_result = isinstance(error, UnconfirmedError)
    answer = LastAnswer.UNCONFIRMED if is_without_result else _answer_of(error)
    reason = str(error) if is_without_result else _ANSWERS[answer]
    detail = _detail_of(error)
    text = f"{reason}: {detail}" if detail else reason
    message = f"a callback reported a success, but its provider has not confirmed it: {text}"
    return Failure(reason=FailureReason.UNCONFIRMED, message=message[:MAX_MESSAGE_LENGTH], last_answer=answer)


def describe(answer: LastAnswer) -> str:
    """Returns a description of a provider's last answer, for messages."""
    return _ANSWERS[answer]


def had_callback(task: Task) -> bool:
    """Decides whether a callback has come for a PENDING task: its result was not confirmed, or it had no result."""
    return task.deliveries > 0 or any(conflict.reported_by is Reporter.CALLBACK for conflict in task.conflicts)


def _detail_of(error: Exception) -> str:
    # The messages of other errors may contain secrets.
    return str(error) if isinstance(error, ProviderError | SettingsError) else ""


def _answer_of(error: Exception | None) -> LastAnswer:
    match error:
        case None:
            return LastAnswer.NOT_ASKED
        case ProviderRefusedError() | SettingsError():
            return LastAnswer.REFUSED
        case RequestRefusedError():
            return LastAnswer.REQUEST_REFUSED
        case ProviderBusyError():
            return LastAnswer.BUSY
        case UnreadableAnswerError():
            return LastAnswer.UNREADABLE
        case ProviderError():
            return LastAnswer.NO_ANSWER
        case _:  # a bug in Catchlight, raised while the answer was parsed
            return LastAnswer.UNREADABLE
