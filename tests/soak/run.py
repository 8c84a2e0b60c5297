"""Runs a soak: a local stack, the world outside of it, the faults between them; then checks what is left."""

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.faults import AwsFaults, Fault
from local.stack import REPOSITORY, LocalStack
from local.template import load_template
from tests.soak.callers import Delivery
from tests.soak.checks import Violation, check_history
from tests.soak.claims import Claim
from tests.soak.ending import Contents, Standing, alarms_missing, check_bucket, check_requests, check_tasks
from tests.soak.history import History, Recorder
from tests.soak.images import image_bytes
from tests.soak.plans import Treatment, deliveries_by_treatment, plan_tasks
from tests.soak.weather import RATES, STREAK_RATE, Killer, outages

LOST = frozenset(
    {
        "every task ends",
        "what is acknowledged is known",
        "objects are those of successful tasks",
        "evidence stays",
        "what cannot be read is kept",
    }
)
TERMINAL = frozenset({"ARCHIVED", "INCOMPLETE", "FAILED", "TIMED_OUT"})
# Nothing has happened for so long: longer than any pause between two tries that shows nowhere.
QUIET_SECONDS = 4.0


@dataclass(frozen=True)
class Soak:
    """What a run is like. The same seed plans the same tasks with the same faults."""

    tasks: int
    seed: int
    state_dir: Path
    time_scale: float = 0.05
    in_flight: int = 120  # tasks that have begun and not ended: more would only wait for this machine
    # Polls are rarer than by default, as this machine can bear; giving up is not waited for as long.
    parameters: Mapping[str, str] = field(
        default_factory=lambda: {
            "FirstPollAfterSeconds": "120",
            "PollIntervalSeconds": "120",
            "SlowPollIntervalSeconds": "120",
            "GiveUpAfterSeconds": "900",
            "LogLevel": "INFO",
        }
    )
    max_seconds: float = 3600


@dataclass(frozen=True)
class Progress:
    """Where a run is."""

    stage: str
    begun: int
    ended: int
    seconds: float
    rss_mb: int


@dataclass
class Report:
    """What a run came to."""

    soak: Soak
    deliveries: Mapping[Treatment, int]
    requests: Counter[str]  # deliveries as they were sent, by what was answered
    polls: Mapping[str, int]
    image_requests: int
    calls: int  # of functions, to AWS
    faults: Mapping[tuple[str, Fault], int]
    kills: Mapping[str, int]
    outcomes_before: Mapping[str, int]  # a redrive
    outcomes: Mapping[str, int]
    dead: Mapping[str, int]  # tasks, by failure queue, before the redrive
    objects: int
    acknowledged: int
    changes: int
    resolved_by: Mapping[str, int]  # who brought the first result that counted
    violations: list[Violation]
    history: History
    seconds: float
    rss_mb: list[int]

    @property
    def lost(self) -> int:
        """Violations that mean that something is lost."""
        return sum(violation.promise in LOST for violation in self.violations)

    @property
    def double(self) -> int:
        """Violations that mean that something was done twice."""
        return sum(violation.promise == "once" for violation in self.violations)

    @property
    def treated_share(self) -> float:
        """Of the deliveries, those that something was done to."""
        return 1 - self.deliveries[Treatment.NONE] / sum(self.deliveries.values())


class Outside:
    """The process in which everybody is who is not the stack."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.outside"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.through: set[int] = set()  # tasks that nobody will call for again
        hello = self._hear()
        self.base_urls: dict[str, str] = hello["base_urls"]
        self.image_host: str = hello["image_host"]
        self._reported = threading.Event()
        self._report: dict[str, Any] = {}
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def begin(self, soak: Soak, stack: Mapping[str, Any]) -> None:
        self._listener.start()
        self._tell(seed=soak.seed, time_scale=soak.time_scale, stack=dict(stack))

    def begin_task(self, number: int) -> None:
        self._tell(task=number)

    def report(self) -> dict[str, Any]:
        """All that was sent, said and served."""
        self._reported.clear()
        self._tell(report=True)
        if not self._reported.wait(60):
            raise RuntimeError("the world outside does not answer")
        return self._report

    def stop(self) -> None:
        """Closes its input, which ends it."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._listener.is_alive():
            self._listener.join()
        assert self._process.stdout
        self._process.stdout.close()

    def _tell(self, **message: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the world outside has ended")
        message: dict[str, Any] = json.loads(line)
        return message

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            message = json.loads(line)
            if "through" in message:
                self.through.add(message["through"])
            else:
                self._report = message
                self._reported.set()


@contextmanager
def _running(outside: Outside) -> Iterator[Outside]:
    try:
        yield outside
    finally:
        outside.stop()


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
    with _running(Outside()) as outside, recorder.watching():
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
