"""Controls a soak test from the start of its first task until the stack is idle."""

import json
import time
from collections.abc import Callable, Collection
from pathlib import Path

from moto.sqs.models import sqs_backends

from local.account import ACCOUNT_ID, REGION
from local.stack import LocalStack
from tests.searches.soak.external_process import ExternalProcess
from tests.searches.soak.history import Recorder
from tests.searches.soak.planning import plan_tasks
from tests.searches.soak.report import Progress, Soak

TERMINAL = frozenset({"ARCHIVED", "INCOMPLETE", "UNCONFIRMED", "FAILED", "TIMED_OUT"})
# A stack without activity for this long is idle. Longer than all pauses during which `_is_idle` returns True.
IDLE_SECONDS = 4.0


class Controller:
    """Starts the tasks of a run, waits until the stack is idle, and reports the progress."""

    def __init__(
        self,
        soak: Soak,
        stack: LocalStack,
        external: ExternalProcess,
        recorder: Recorder,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._soak = soak
        self._stack = stack
        self._external = external
        self._recorder = recorder
        self._began_at = time.monotonic()
        # The last observed phase and number of ended tasks, and when they changed.
        self._reached, self._reached_at = ("", 0), 0.0
        self._on_progress = on_progress
        self._tasks = [plan.task for plan in plan_tasks(soak.seed, soak.tasks)]
        self._begun = 0
        self._open: set[int] = set()
        self.rss_mb: list[int] = []

    def start_tasks(self) -> None:
        """Starts all tasks, with at most `in_flight` at once."""
        while self._begun < self._soak.tasks:
            self._update_progress()
            for number in range(
                self._begun, min(self._soak.tasks, self._begun + self._soak.in_flight - len(self._open))
            ):
                self._external.begin_task(number)
                self._open.add(number)
                self._begun = number + 1
            time.sleep(0.1)

    def wait_until_idle(self, phase: str, *, ignored_tasks: Collection[str] = ()) -> None:
        """Waits until nothing is outstanding: no request, message, execution or running function.

        `ignored_tasks`: tasks whose archiving ArchiveImages may still be repeating.
        """
        idle_since, changes = time.monotonic(), -1
        while time.monotonic() - idle_since < IDLE_SECONDS:
            time.sleep(0.25)
            self._update_progress(phase)
            all_changes = self._recorder.history.changes
            now_changes = (
                sum(change.task not in ignored_tasks for change in all_changes[:])
                if ignored_tasks
                else len(all_changes)
            )
            if now_changes != changes or not self._is_idle(ignored_tasks):
                idle_since, changes = time.monotonic(), now_changes

    def report_progress(self, phase: str) -> Progress:
        """Reports the progress of the run."""
        seconds = time.monotonic() - self._began_at
        progress = Progress(phase, self._begun, self._begun - len(self._open), seconds, _rss_mb())
        self._on_progress(progress)
        return progress

    def _update_progress(self, phase: str = "running") -> None:
        progress = self.report_progress(phase)
        if (phase, progress.ended) != self._reached:
            self._reached, self._reached_at = (phase, progress.ended), progress.seconds
        if progress.seconds - self._reached_at > self._soak.max_seconds:
            raise TimeoutError(
                f"no task has ended for {self._soak.max_seconds:.0f} s, {len(self._open)} are open: {phase}"
            )
        if len(self.rss_mb) <= progress.ended * 10 // self._soak.tasks:
            self.rss_mb.append(progress.rss_mb)
        latest, completed = self._recorder.latest(), self._external.completed
        for number in list(self._open):
            item = latest.get(self._tasks[number])
            if item.status in TERMINAL if item else number in completed:
                self._open.discard(number)

    def _is_idle(self, ignored_tasks: Collection[str]) -> bool:
        if len(self._external.completed) < self._begun:
            return False
        busy = {name for name, function in self._stack.functions.items() if function.busy()}
        if busy - ({"ArchiveImagesFunction"} if ignored_tasks else set()):
            return False
        if not self._tasks_to_archive() <= set(ignored_tasks):
            return False
        running = self._stack.boto3_client("stepfunctions").list_executions(
            stateMachineArn=self._stack.info["state_machine_arn"], statusFilter="RUNNING"
        )["executions"]
        return not running

    def _tasks_to_archive(self) -> set[str]:
        """Returns the tasks with messages in the archive queue, including delayed messages and messages in flight."""
        name = self._stack.info["archive_queue_url"].rpartition("/")[2]
        messages = list(sqs_backends[ACCOUNT_ID][REGION].queues[name]._messages)
        return {json.loads(message.body)["task"] for message in messages}


def _rss_mb() -> int:
    """Returns the memory of this process, in which the stack's services run."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0  # the system has no /proc
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
