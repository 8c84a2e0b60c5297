"""Actions on a task that the gallery offers: redrive it, poll for it now, publish its event again."""

import uuid
from collections.abc import Callable
from contextlib import ExitStack
from enum import StrEnum
from functools import cached_property
from threading import Lock

from catchlight.client.stack import Stack
from catchlight.dispatch import Dispatcher, execution_name
from catchlight.errors import ImageTasksError
from catchlight.events import DETAIL_TYPES
from catchlight.models import Model, TaskStatus, utc_now
from catchlight.recovery.redrive import Redrive, Redriven, Step
from catchlight_cli.factories import dispatcher, redrive
from catchlight_cli.repair.resending import log_of_publish_events, publish_event_of_task

_STEPS = {
    Step.ARCHIVE: "The task is queued for archiving.",
    Step.REOPEN: "Missing images become PENDING, with fresh URLs if the provider returns some, and are archived.",
    Step.POLL: "Polling starts: the first poll is sent at once, further ones follow until there is a result.",
    Step.RESTART: "The task becomes PENDING, and polling starts again.",
    Step.NOTHING: "No retry is needed or possible",
}


class ActionName(StrEnum):
    """The names of the actions in URLs."""

    REDRIVE = "redrive"
    POLL = "poll"
    RESEND_EVENT = "resend-event"


class Action(Model):
    """An action on a task: its effect, and whether it is possible now."""

    name: ActionName
    effect: str
    is_possible: bool


class ActionOutcome(Model):
    """The outcome of an action on a task."""

    name: ActionName
    is_done: bool
    detail: str


class TaskActions:
    """Plans and carries out actions on single tasks of a stack. Thread-safe."""

    def __init__(self, find_stack: Callable[[], Stack]) -> None:
        self._find_stack = find_stack
        self._lock = Lock()  # the stack and what it needs are created once, by the first thread
        self._release = ExitStack()

    def close(self) -> None:
        """Closes the connections to the stack and the providers."""
        self._release.close()

    def plan(self, task: str) -> tuple[Action, ...]:
        """Returns the actions on a task with their effects at this moment. Changes nothing.

        Raises:
            StoreUnavailableError: the task could not be read.
        """
        with self._lock:
            planned = self._redrive.plan(task)
        is_pending = planned.status is TaskStatus.PENDING
        has_event = planned.status in DETAIL_TYPES
        return (
            Action(
                name=ActionName.REDRIVE,
                effect=_effect(planned),
                is_possible=planned.step is not Step.NOTHING,
            ),
            Action(
                name=ActionName.POLL,
                effect=_STEPS[Step.POLL] if is_pending else "Only PENDING tasks are polled for.",
                is_possible=is_pending,
            ),
            Action(
                name=ActionName.RESEND_EVENT,
                effect="The event of its status is published on the event bus again, with the same eventId."
                if has_event
                else "The task has not reached a status that has an event.",
                is_possible=has_event,
            ),
        )

    def run(self, name: ActionName, task: str) -> ActionOutcome:
        """Carries out an action. Returns an error of the stack or the provider in the outcome."""
        with self._lock:
            stack, redriver, polling = self._stack, self._redrive, self._dispatcher
        try:
            match name:
                case ActionName.REDRIVE:
                    done = redriver.redrive(task, nonce=str(uuid.uuid4()))
                    is_done = not done.is_failed and done.step is not Step.NOTHING
                    detail = f"{done.detail}." if done.is_failed else _outcome(done)
                case ActionName.POLL:
                    # Executions of the same minute have the same name: a second click starts no second execution.
                    minute = f"{utc_now():%Y-%m-%dT%H:%M}"
                    is_new = polling.start_polling([task], name=execution_name("gallery", (task, minute)))
                    is_done, detail = True, "Polling has started." if is_new else "Polling was started a moment ago."
                case ActionName.RESEND_EVENT:
                    is_done = publish_event_of_task(stack, task)
                    reason = f"PublishEvents did not publish it: its log {log_of_publish_events(stack)} has the reason."
                    detail = "The event is published." if is_done else reason
        except ImageTasksError as exc:
            return ActionOutcome(name=name, is_done=False, detail=str(exc))
        return ActionOutcome(name=name, is_done=is_done, detail=detail)

    @cached_property
    def _stack(self) -> Stack:
        stack = self._find_stack()
        self._release.callback(stack.close)
        return stack

    @cached_property
    def _redrive(self) -> Redrive:
        return self._release.enter_context(redrive(self._stack))

    @cached_property
    def _dispatcher(self) -> Dispatcher:
        return dispatcher(self._stack)


def _effect(planned: Redriven) -> str:
    return f"{_STEPS[Step.NOTHING]}: {planned.detail}." if planned.step is Step.NOTHING else _STEPS[planned.step]


def _outcome(redriven: Redriven) -> str:
    if redriven.step is Step.NOTHING:
        return _effect(redriven)
    fresh = f"{redriven.fresh_urls} fresh URLs." if redriven.fresh_urls else ""
    return " ".join(filter(None, (_STEPS[redriven.step], fresh, redriven.detail and f"{redriven.detail}.")))
