"""Runs a soak test: starts a local stack with simulated clients and providers, injects faults, checks the result."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest import mock

from local import REPOSITORY
from local.lambda_ import logs
from local.stack import LocalStack
from local.template.expand import load_template
from tests.searches.soak.aws_faults import AwsFaults
from tests.searches.soak.before_repair import StateBeforeRepair, read_counted_failures, read_tasks_logged_as_killed
from tests.searches.soak.callers import Delivery
from tests.searches.soak.controller import Controller
from tests.searches.soak.disruptions import DisruptionSchedule
from tests.searches.soak.evidence import Evidence, check_evidence
from tests.searches.soak.external_process import ExternalProcess
from tests.searches.soak.fault_schedule import CLOCK_SECONDS, RATES, STREAK_RATE, Killer, outages
from tests.searches.soak.final_state import BucketContents, Snapshot
from tests.searches.soak.history import History, Recorder
from tests.searches.soak.memory_kills import expire_redelivered_messages, keep_messages_invisible_until_timeout
from tests.searches.soak.planning import deliveries_by_fault, plan_tasks
from tests.searches.soak.plans import TaskPlan
from tests.searches.soak.report import Progress, Report, Soak
from tests.searches.soak.reported_state import ReportedState

RECONCILE_CLOCK_SHIFT_SECONDS = 8 * 3600
LOG_BYTES_PER_TASK = 100_000  # of each function's log; ten times the observed size


@dataclass(frozen=True)
class _RunData:
    """The recorded data of a run, before it is checked."""

    evidence: Evidence
    faults: AwsFaults
    killer: Killer
    disruptions: DisruptionSchedule
    external_report: dict[str, Any]  # the records of the process that simulates providers and users
    rss_mb: list[int]


def run(soak: Soak, on_progress: Callable[[Progress], None] = lambda _: None) -> Report:
    """Runs a soak test and checks the result.

    Raises:
        TimeoutError: neither a task nor a phase of the run ended within `max_seconds`.
    """
    began_at = time.monotonic()
    data = _run_stack(soak, on_progress)
    evidence = data.evidence
    history, result = evidence.history, check_evidence(evidence)
    return Report(
        soak=soak,
        deliveries=deliveries_by_fault(evidence.plans),
        requests=Counter(str(delivery.status or delivery.error or delivery.cut) for delivery in history.deliveries),
        polls=data.external_report["polls"],
        image_requests=sum(data.external_report["image_requests"].values()),
        calls=data.faults.calls.total(),
        faults=data.faults.injected,
        kills=data.killer.kills,
        disruptions=data.disruptions.injected + _planned_disruptions(evidence.plans),
        outcomes_before=result.outcomes_before,
        outcomes=result.outcomes,
        dead_letters=Counter(evidence.before_redrive.dead_letters.values()),
        objects=len(evidence.contents.objects),
        acknowledged=sum(delivery.status == 200 for delivery in history.deliveries),
        changes=len(history.changes),
        events=len(history.events),
        resolved_by=_resolved_by(history),
        violations=result.violations,
        history=history,
        seconds=time.monotonic() - began_at,
        rss_mb=data.rss_mb,
    )


def _run_stack(soak: Soak, on_progress: Callable[[Progress], None]) -> _RunData:
    recorder = Recorder()
    plans = plan_tasks(soak.seed, soak.tasks)
    oversized = {plan.task: plan.task_id for plan in plans if plan.is_oversized}
    killers: list[Killer] = []  # empty until the functions exist, then one entry
    faults = AwsFaults(
        soak.seed,
        RATES,
        kill=lambda function, sandbox: killers[0].kill(function, sandbox),
        streak_rate=STREAK_RATE,
        outages=outages(soak.seed),
        oversized=oversized.values(),
    )
    with ExternalProcess() as external, ExitStack() as patches:
        disruptions = DisruptionSchedule(
            soak.seed,
            soak.time_scale,
            faults,
            set_providers_out=external.set_out,
            abort_execution=lambda: _abort_execution(stack),
        )
        patches.enter_context(recorder.recording())
        # The checks read the logs of all tasks, so the earlier ones must not be deleted.
        patches.enter_context(mock.patch.object(logs, "MAX_LOG_BYTES", soak.tasks * LOG_BYTES_PER_TASK))
        patches.enter_context(disruptions.patched())
        patches.enter_context(keep_messages_invisible_until_timeout())
        stack = LocalStack(
            state_dir=soak.state_dir,
            time_scale=soak.time_scale,
            provider_urls=external.base_urls,
            image_hosts=[external.image_host],
            simulator=False,
            parameters=soak.parameters,
            artefact=soak.artefact,
            aws_middleware=lambda application: faults.around(recorder.around(application)),
        )
        with stack:
            killers.append(killer := Killer(soak.seed, stack.functions))
            external.begin(soak, stack.info)
            controller = Controller(soak, stack, external, recorder, on_progress)
            for name, seconds in CLOCK_SECONDS.items():
                stack.functions[name].shift_clock(seconds)
            faults.begin()
            killer.start()
            disruptions.start()
            controller.start_tasks()
            controller.wait_until_idle("waiting for the last tasks", ignored_tasks=oversized)
            disruptions.stop()
            killer.stop()
            faults.end()
            with expire_redelivered_messages(stack):
                controller.wait_until_idle("waiting for the dead letters of oversized tasks")
            before_repair = Snapshot.of(stack, recorder.history)
            faults.end_oversized_kills()
            external.end_long_outages()
            _reconcile(stack)
            controller.wait_until_idle("reconciling")
            before_redrive = Snapshot.of(stack, recorder.history)
            redrive_problem = _redrive(soak)
            controller.wait_until_idle("redriving")
            controller.report_progress("reading the final state")
            after_redrive, contents = Snapshot.of(stack, recorder.history), BucketContents.of(stack)
        external_report = external.report()
    history = recorder.history
    history.deliveries = [Delivery.from_json(document) for document in external_report["deliveries"]]
    history.provider_reports = {
        (task, ReportedState.from_json(reported)): at for task, reported, at in external_report["provider_reports"]
    }
    log_files = soak.state_dir / "logs"
    evidence = Evidence(
        plans=plans,
        history=history,
        before_repair=StateBeforeRepair(
            before_repair,
            counted_failures=read_counted_failures(log_files),
            logged_as_killed=read_tasks_logged_as_killed(log_files),
        ),
        before_redrive=before_redrive,
        after_redrive=after_redrive,
        contents=contents,
        image_requests=external_report["image_requests"],
        template=load_template(REPOSITORY / "template.yaml", soak.parameters, {}),
        errors=external_report["errors"],
        redrive_problem=redrive_problem,
    )
    return _RunData(evidence, faults, killer, disruptions, external_report, controller.rss_mb)


def _planned_disruptions(plans: Sequence[TaskPlan]) -> Counter[str]:
    """Counts the tasks whose plan contains a disruption of its own."""
    return Counter(
        {
            "oversized tasks, whose runs are killed": sum(plan.is_oversized for plan in plans),
            "tasks with an outage longer than polling": sum(plan.is_provider_out for plan in plans),
        }
    )


def _reconcile(stack: LocalStack) -> None:
    """Runs ReconcileTasks with its clock set forward, so that it finds all tasks that have stopped changing."""
    stack.functions["ReconcileTasksFunction"].shift_clock(RECONCILE_CLOCK_SHIFT_SECONDS)
    stack.invoke("ReconcileTasksFunction", {})


def _abort_execution(stack: LocalStack) -> bool:
    step_functions = stack.boto3_client("stepfunctions")
    running = step_functions.list_executions(stateMachineArn=stack.info["state_machine_arn"], statusFilter="RUNNING")[
        "executions"
    ]
    if running:
        step_functions.stop_execution(executionArn=running[0]["executionArn"], error="Aborted", cause="by an operator")
    return bool(running)


def _redrive(soak: Soak) -> str | None:
    """Runs `catchlight redrive` after the faults, as an operator does. Returns an error description, or None."""
    command = ["-m", "catchlight_cli", "redrive", "--all", "--limit", str(soak.tasks), "--local", "--json"]
    done = subprocess.run(
        [sys.executable, *command, "--state-dir", str(soak.state_dir.resolve())],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    (soak.state_dir / "redrive.json").write_text(done.stdout)
    return f"exit status {done.returncode}: {done.stderr[-1000:]}" if done.returncode else None


def _resolved_by(history: History) -> Counter[str]:
    first: dict[str, str] = {}
    for change in history.changes:
        if change.after and change.after.reported_by and change.after.status != "TIMED_OUT":
            first.setdefault(change.task, change.after.reported_by)
    return Counter(first.values())
