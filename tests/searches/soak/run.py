"""Runs a soak test: a local stack, simulated clients and services, injected faults; then checks the result."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from local import REPOSITORY
from local.stack import LocalStack
from local.template.expand import load_template
from tests.searches.soak.aftermath import Aftermath, read_counted, read_suspects
from tests.searches.soak.aws_faults import AwsFaults
from tests.searches.soak.callers import Delivery
from tests.searches.soak.controller import Controller
from tests.searches.soak.ending import Contents, Standing
from tests.searches.soak.external_process import ExternalProcess
from tests.searches.soak.fault_schedule import CLOCK_SECONDS, RATES, STREAK_RATE, Killer, outages
from tests.searches.soak.history import History, Recorder
from tests.searches.soak.memory_kills import messages_outlast_their_runs, receives_used_up
from tests.searches.soak.planning import deliveries_by_treatment, plan_tasks
from tests.searches.soak.plans import TaskPlan
from tests.searches.soak.report import Progress, Report, Soak
from tests.searches.soak.reported_state import ReportedState
from tests.searches.soak.verdict import Evidence, judge
from tests.searches.soak.weather import Weather

RECONCILED_AFTER_SECONDS = 8 * 3600


@dataclass(frozen=True)
class _Played:
    """The data that a run leaves."""

    evidence: Evidence
    faults: AwsFaults
    killer: Killer
    weather: Weather
    external_report: dict[str, Any]  # the report of the process outside of the stack
    rss_mb: list[int]


def run(soak: Soak, on_progress: Callable[[Progress], None] = lambda _: None) -> Report:
    """Runs a soak test and checks the result.

    Raises:
        TimeoutError: no task ended, and no phase, within `max_seconds`.
    """
    began_at = time.monotonic()
    played = _play(soak, on_progress)
    evidence = played.evidence
    history, verdict = evidence.history, judge(evidence)
    return Report(
        soak=soak,
        deliveries=deliveries_by_treatment(evidence.plans),
        requests=Counter(str(delivery.status or delivery.error or delivery.cut) for delivery in history.deliveries),
        polls=played.external_report["polls"],
        image_requests=sum(played.external_report["image_requests"].values()),
        calls=played.faults.calls.total(),
        faults=played.faults.injected,
        kills=played.killer.kills,
        weather=played.weather.played + _weather_of(evidence.plans),
        outcomes_before=verdict.outcomes_before,
        outcomes=verdict.outcomes,
        dead=Counter(evidence.before.dead.values()),
        objects=len(evidence.contents.objects),
        acknowledged=sum(delivery.status == 200 for delivery in history.deliveries),
        changes=len(history.changes),
        events=len(history.events),
        resolved_by=_resolved_by(history),
        violations=verdict.violations,
        history=history,
        seconds=time.monotonic() - began_at,
        rss_mb=played.rss_mb,
    )


def _play(soak: Soak, on_progress: Callable[[Progress], None]) -> _Played:
    recorder = Recorder()
    plans = plan_tasks(soak.seed, soak.tasks)
    lethal = {plan.task: plan.task_id for plan in plans if plan.is_lethal}
    killers: list[Killer] = []  # one, as soon as there are functions to kill
    faults = AwsFaults(
        soak.seed,
        RATES,
        kill=lambda function, sandbox: killers[0].kill(function, sandbox),
        streak_rate=STREAK_RATE,
        outages=outages(soak.seed),
        lethal=lethal.values(),
    )
    with ExternalProcess() as external, ExitStack() as watching:
        weather = Weather(
            soak.seed,
            soak.time_scale,
            faults,
            set_providers_out=external.set_out,
            abort_execution=lambda: _abort_execution(stack),
        )
        watching.enter_context(recorder.watching())
        watching.enter_context(weather.watching())
        watching.enter_context(messages_outlast_their_runs())
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
            weather.start()
            controller.feed()
            controller.wait_until_quiet("waiting for the last", besides=lethal)
            weather.stop()
            killer.stop()
            faults.end()
            with receives_used_up(stack):
                controller.wait_until_quiet("waiting for what kills each run")
            aftermath = Standing.of(stack, recorder.history)
            faults.cure()
            external.set_back()
            _reconcile(stack)
            controller.wait_until_quiet("reconciling")
            before = Standing.of(stack, recorder.history)
            redrive_problem = _redrive(soak)
            controller.wait_until_quiet("redriving")
            controller.report_progress("reading what is left")
            after, contents = Standing.of(stack, recorder.history), Contents.of(stack)
        external_report = external.report()
    history = recorder.history
    history.deliveries = [Delivery.from_json(document) for document in external_report["deliveries"]]
    history.said = {(task, ReportedState.from_json(says)): at for task, says, at in external_report["said"]}
    logs = soak.state_dir / "logs"
    evidence = Evidence(
        plans=plans,
        history=history,
        aftermath=Aftermath(aftermath, counted=read_counted(logs), suspects=read_suspects(logs)),
        before=before,
        after=after,
        contents=contents,
        image_requests=external_report["image_requests"],
        template=load_template(REPOSITORY / "template.yaml", soak.parameters, {}),
        errors=external_report["errors"],
        redrive_problem=redrive_problem,
    )
    return _Played(evidence, faults, killer, weather, external_report, controller.rss_mb)


def _weather_of(plans: Sequence[TaskPlan]) -> Counter[str]:
    """Counts the tasks that have a weather of their own."""
    return Counter(
        {
            "tasks that kill each run": sum(plan.is_lethal for plan in plans),
            "tasks whose service is out beyond giving up": sum(plan.is_service_out for plan in plans),
        }
    )


def _reconcile(stack: LocalStack) -> None:
    """Runs ReconcileTasks as some hours later: it looks for tasks that have not changed for longer than a run takes."""
    stack.functions["ReconcileTasksFunction"].shift_clock(RECONCILED_AFTER_SECONDS)
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
    """Runs the operator's redrive command after the faults. Returns an error description, or None."""
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
