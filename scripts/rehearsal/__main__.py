"""Rehearses a deployment: deploys the artefact with the real `sam deploy` to MiniStack on this machine, runs tasks
through the stack, updates it, deletes it, and deploys another one over the retained table and bucket.

docs/deploying.md lists what the rehearsal verifies and what can be verified in AWS only.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from local.environment import ignore_user_settings

if __name__ == "__main__":  # before anything imports boto3 or moto
    ignore_user_settings()

from rich.console import Console

from catchlight.client import TaskResponse
from local import REPOSITORY, LocalStackError
from local.account import STACK_NAME
from local.artefact import Artefact, built_artefact
from local.simulator import ORIGIN_LIFETIME_SECONDS, Simulator
from scripts.import_retained import import_retained
from scripts.rehearsal import RehearsalError
from scripts.rehearsal.deployment import Deployment
from scripts.rehearsal.emulator import PYTHON, running_ministack
from scripts.rehearsal.first_steps import run_first_steps, set_keys
from scripts.rehearsal.ministack_gaps import names_below_localhost, put_secrets
from scripts.rehearsal.receiver import Receiver, receiver
from scripts.rehearsal.report import Report
from scripts.rehearsal.stack_checks import API_KEY, StackChecks, expect
from scripts.rehearsal.updates import copy_sources, deletion, updates

# Factor of all waits, as in the demo: a minute takes three seconds.
TIME_SCALE = 0.05
FIRST_POLL_AFTER_SECONDS = 120  # the parameter's default
# Real seconds between a callback's attempts: each attempt may start another worker.
RETRY_DELAY_SECONDS = 10
# Limit for the whole rehearsal. It takes three minutes with two idle cores, several times as long on a busy machine.
MAX_SECONDS = 1200
LOGS = REPOSITORY / ".local" / "rehearsal"
ALARM_TOPIC = "operators"


def main() -> int:
    """Runs the rehearsal and returns the exit status: 0 if all expectations are met."""
    parser = argparse.ArgumentParser(prog="python -m scripts.rehearsal", description=__doc__)
    parser.add_argument(
        "--without-grant", metavar="SID", help="leave out this IAM statement; the rehearsal must fail then"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(MAX_SECONDS)
    report = Report()
    try:
        rehearse(report, arguments.without_grant)
    except (RehearsalError, LocalStackError) as exc:
        print(f"\nThe rehearsal failed after {time.monotonic() - report.begun:.0f} s. {exc}", file=sys.stderr)
        print(f"The logs of MiniStack and the functions are in {LOGS.relative_to(REPOSITORY)}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. All processes of the rehearsal have ended.", file=sys.stderr)
        return 130
    finally:
        signal.alarm(0)
    Console().print(report.table())
    print(f"{time.monotonic() - report.begun:.0f} s. docs/deploying.md lists the checks that need AWS.")
    return 0


def rehearse(report: Report, without_grant: str | None) -> None:
    """Deploys the stack, runs tasks through it, updates it, deletes it and redeploys it."""
    python = Path(sys.executable) if sys.version_info[:2] == (3, 13) else PYTHON
    artefact = built_artefact(report.progress, python=python)
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rehearsal-", ignore_cleanup_errors=True)))
        # A copy, so that edits of the sources during the rehearsal have no effect.
        sources = copy_sources(folder / "sources")
        stack.enter_context(names_below_localhost())
        # The simulator scales URL lifetimes and retry delays. They are divided by the scale to keep their real length,
        # because the duration of the functions' work is not scaled.
        simulator = stack.enter_context(
            Simulator(
                time_scale=TIME_SCALE,
                origin_lifetime_seconds=ORIGIN_LIFETIME_SECONDS / TIME_SCALE,
                retry_delay_seconds=RETRY_DELAY_SECONDS / TIME_SCALE,
                records_wait=True,
            )
        )
        receiving = stack.enter_context(receiver())
        emulator_folder = folder / "ministack"
        emulator_folder.mkdir()
        report.progress("Starting MiniStack, with role enforcement.")
        ministack = stack.enter_context(
            running_ministack(
                emulator_folder,
                LOGS / "ministack.log",
                time_scale=TIME_SCALE,
                hosts=(simulator.image_host, receiving.host),
            )
        )
        deployment = Deployment(ministack, folder, without_grant)
        checks = first_deployment(report, deployment, artefact, simulator, receiving)
        stack.callback(checks.logs.write, LOGS / "functions.log")
        checks.warm_up()
        ended = checks.run_cases()
        user_folder = folder / "user"
        user_folder.mkdir()
        images = run_first_steps(deployment, user_folder, API_KEY)
        expect(images > 0, "the README's commands download an image")
        report.verified("the README's commands, from `keys set` to the first images", f"{images} images")
        checks.refusals()
        checks.events(ended)
        checks.webhooks(ended, receiving)
        checks.reconciliation()
        updates(report, deployment, artefact, checks, sources, python)
        checks.wait_for_all_webhooks(receiving)
        retained = deletion(report, deployment)
        redeployment(report, deployment, artefact, checks, retained, ended)


def first_deployment(
    report: Report, deployment: Deployment, artefact: Artefact, simulator: Simulator, receiving: Receiver
) -> StackChecks:
    """Deploys the stack for the first time, checks resources and parameters, and sets the secrets."""
    topic = deployment.ministack.client("sns").create_topic(Name=ALARM_TOPIC)["TopicArn"]
    report.progress("sam deploy, for the first time.")
    deployment.deploy(artefact, AlarmTopicArn=topic, WebhookUrl=receiving.url, **_parameters(simulator))
    alarms = deployment.ministack.client("cloudwatch").describe_alarms()["MetricAlarms"]
    expect(all(alarm["AlarmActions"] == [topic] for alarm in alarms) and bool(alarms), "every alarm has the topic")
    resources = deployment.resources()
    report.verified("first sam deploy", f"{len(resources)} resources, the topic in {len(alarms)} alarms")
    return _stack_checks(report, deployment, simulator, caller="caller")


def redeployment(
    report: Report,
    deployment: Deployment,
    artefact: Artefact,
    checks: StackChecks,
    retained: Mapping[str, str],
    ended: list[TaskResponse],
) -> None:
    """Deploys a new stack with the retained table and bucket, and checks that no task and no image is lost."""
    report.progress("A new stack for the retained table and bucket.")
    client = deployment.ministack.client("cloudformation")
    import_retained(client, STACK_NAME, table=retained["TasksTable"], bucket=retained["ImagesBucket"])
    imported = deployment.resources()
    expect(imported == retained, f"the new stack has the retained table and bucket only: {imported}")
    deployment.deploy(artefact, **_parameters(checks.simulator))
    resources = deployment.resources()
    expect(imported.items() <= resources.items(), "the deployment keeps the table and the bucket")
    new_checks = _stack_checks(report, deployment, checks.simulator, caller="second-caller")
    linked = new_checks.earlier_tasks(ended)
    new_checks.one_task()
    figures = f"{len(resources)} resources, {len(ended)} tasks, {linked} images"
    report.verified("a new stack uses the retained table and bucket", figures)


def _stack_checks(report: Report, deployment: Deployment, simulator: Simulator, *, caller: str) -> StackChecks:
    """Sets the secrets of a new stack, and returns the checks of this stack."""
    set_keys(deployment, REPOSITORY, list(simulator.provider_urls), API_KEY)
    token = put_secrets(deployment.ministack, deployment.resources())
    return StackChecks(deployment, simulator, token, report.verified, caller)


def _parameters(simulator: Simulator) -> dict[str, str]:
    base_urls = ",".join(f"{provider}={url}" for provider, url in simulator.provider_urls.items())
    # MiniStack scales the waits of state machines, but not the delays of messages.
    first_poll = str(round(FIRST_POLL_AFTER_SECONDS * TIME_SCALE))
    return {"ProviderBaseUrls": base_urls, "FirstPollAfterSeconds": first_poll}


def _out_of_time(*_: object) -> None:
    raise RehearsalError(f"The rehearsal took more than {MAX_SECONDS} s. If the machine is busy, try again later.")


if __name__ == "__main__":
    sys.exit(main())
