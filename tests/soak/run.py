"""Runs a soak: a local stack, the world outside of it, the faults between them; then checks what is left."""

import hashlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from local.faults import AwsFaults
from local.stack import REPOSITORY, LocalStack
from local.template import load_template
from tests.soak.callers import Delivery
from tests.soak.checks import Violation, check_history
from tests.soak.claims import Claim
from tests.soak.ending import Contents, Standing, alarms_missing, check_bucket, check_requests, check_tasks
from tests.soak.history import History, Recorder
from tests.soak.images import image_bytes
from tests.soak.outside_process import Outside
from tests.soak.planning import deliveries_by_treatment, plan_tasks
from tests.soak.report import Progress, Report, Soak
from tests.soak.weather import RATES, STREAK_RATE, Killer, outages

TERMINAL = frozenset({"ARCHIVED", "INCOMPLETE", "FAILED", "TIMED_OUT"})
# Nothing has happened for so long: longer than any pause between two tries that shows nowhere.
QUIET_SECONDS = 4.0


def run(soak: Soak, on_progress: Callable[[Progress], None] = lambda _: None) -> Report:
    """Plays a soak and checks it.

    Raises:
        TimeoutError: it did not come to rest within `max_seconds`.
    """
    began_at = time.monotonic()
    recorder = Recorder()
    plans = plan_tasks(soak.seed, soak.tasks)
    images = {image.path: hashlib.sha256(image_bytes(image)).hexdigest() for plan in plans for image in plan.images}
    killers: list[Killer] = []
    faults = AwsFaults(
        soak.seed,
        RATES,
        kill=lambda function, sandbox: killers[0].kill(function, sandbox),
        streak_rate=STREAK_RATE,
        outages=outages(soak.seed),
    )
    with Outside() as outside, recorder.watching():
        stack = LocalStack(
            state_dir=soak.state_dir,
            time_scale=soak.time_scale,
            provider_urls=outside.base_urls,
            image_hosts=[outside.image_host],
            simulator=False,
            parameters=soak.parameters,
            aws_middleware=lambda application: faults.around(recorder.around(application)),
        )
        with stack:
            killers.append(Killer(soak.seed, stack.functions))
            outside.begin(soak, stack.info)
            faults.begin()
            killers[0].start()
            course = _Course(soak, stack, outside, recorder, began_at, on_progress)
            course.feed()
            course.wait_until_quiet("waiting for the last")
            killers[0].stop()
            faults.end()
            before = Standing.of(stack, recorder.history)
            _redrive(soak)
            course.wait_until_quiet("redriving")
            on_progress(course.progress("reading what is left"))
            after = Standing.of(stack, recorder.history)
            contents = Contents.of(stack)
        world = outside.report()

    history = recorder.history
    history.deliveries = [Delivery.from_json(document) for document in world["deliveries"]]
    history.said = {(task, Claim.from_json(says)): at for task, says, at in world["said"]}
    violations, outcomes_before = check_tasks(plans, before, history, is_repaired=False)
    left, outcomes = check_tasks(plans, after, history, is_repaired=True)
    violations += left
    violations += check_bucket(after, contents, history, images)
    violations += check_requests(world["image_requests"])
    violations += check_history(history, images)
    violations += [
        Violation("dead letters raise an alarm", queue, "no alarm watches it")
        for queue in alarms_missing(load_template(REPOSITORY / "template.yaml", soak.parameters, {}))
    ]
    violations += [Violation("the soak itself works", "", error) for error in world["errors"]]
    return Report(
        soak=soak,
        deliveries=deliveries_by_treatment(plans),
        requests=Counter(str(delivery.status or delivery.error or delivery.cut) for delivery in history.deliveries),
        polls=world["polls"],
        image_requests=sum(world["image_requests"].values()),
        calls=faults.calls.total(),
        faults=faults.injected,
        kills=killers[0].kills,
        outcomes_before=outcomes_before,
        outcomes=outcomes,
        dead=Counter(before.dead.values()),
        objects=len(contents.objects),
        acknowledged=sum(delivery.status == 200 for delivery in history.deliveries),
        changes=len(history.changes),
        resolved_by=_resolved_by(history),
        violations=violations,
        history=history,
        seconds=time.monotonic() - began_at,
        rss_mb=course.rss_mb,
    )


def _redrive(soak: Soak) -> None:
    """What an operator does once the storm is over, as an operator does it."""
    command = ["-m", "catchlight", "redrive", "--all", "--limit", str(soak.tasks), "--local", "--json"]
    done = subprocess.run(
        [sys.executable, *command, "--state-dir", str(soak.state_dir.resolve())],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    (soak.state_dir / "redrive.json").write_text(done.stdout)
    done.check_returncode()


def _resolved_by(history: History) -> Counter[str]:
    first: dict[str, str] = {}
    for change in history.changes:
        if change.after and change.after.reported_by and change.after.status != "TIMED_OUT":
            first.setdefault(change.task, change.after.reported_by)
    return Counter(first.values())


class _Course:
    """A run from its first task until it is quiet."""

    def __init__(
        self,
        soak: Soak,
        stack: LocalStack,
        outside: Outside,
        recorder: Recorder,
        began_at: float,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._soak = soak
        self._stack = stack
        self._outside = outside
        self._recorder = recorder
        self._began_at = began_at
        self._on_progress = on_progress
        self._tasks = [plan.task for plan in plan_tasks(soak.seed, soak.tasks)]
        self._begun = 0
        self._open: set[int] = set()
        self.rss_mb: list[int] = []

    def feed(self) -> None:
        """Begins all tasks, never more at once than are to be in flight."""
        while self._begun < self._soak.tasks:
            self._look()
            for number in range(
                self._begun, min(self._soak.tasks, self._begun + self._soak.in_flight - len(self._open))
            ):
                self._outside.begin_task(number)
                self._open.add(number)
                self._begun = number + 1
            time.sleep(0.1)

    def wait_until_quiet(self, stage: str) -> None:
        """Returns when nothing moves any more: no call to come, no message, no execution, no function at work."""
        quiet_since, changes = time.monotonic(), -1
        while time.monotonic() - quiet_since < QUIET_SECONDS:
            time.sleep(0.25)
            self._look(stage)
            now_changes = len(self._recorder.history.changes)
            if now_changes != changes or not self._is_idle():
                quiet_since, changes = time.monotonic(), now_changes

    def progress(self, stage: str) -> Progress:
        return Progress(stage, self._begun, self._begun - len(self._open), time.monotonic() - self._began_at, _rss_mb())

    def _look(self, stage: str = "playing") -> None:
        progress = self.progress(stage)
        if progress.seconds > self._soak.max_seconds:
            raise TimeoutError(f"after {progress.seconds:.0f} s {len(self._open)} tasks are open: {stage}")
        if len(self.rss_mb) <= progress.ended * 10 // self._soak.tasks:
            self.rss_mb.append(progress.rss_mb)
        latest, through = self._recorder.latest(), self._outside.through
        for number in list(self._open):
            item = latest.get(self._tasks[number])
            if item.status in TERMINAL if item else number in through:
                self._open.discard(number)
        self._on_progress(progress)

    def _is_idle(self) -> bool:
        if len(self._outside.through) < self._begun:
            return False
        if any(function.busy() for function in self._stack.functions.values()):
            return False
        attributes = self._stack.boto3_client("sqs").get_queue_attributes(
            QueueUrl=self._stack.info["archive_queue_url"], AttributeNames=["All"]
        )["Attributes"]
        if any(int(value) for name, value in attributes.items() if name.startswith("ApproximateNumberOfMessages")):
            return False
        running = self._stack.boto3_client("stepfunctions").list_executions(
            stateMachineArn=self._stack.info["state_machine_arn"], statusFilter="RUNNING"
        )["executions"]
        return not running


def _rss_mb() -> int:
    """Of this process, which the stack's services run in."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0  # not on this system
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
