"""Schedules run functions in scaled time; unsupported schedules prevent the start."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local import LocalStackError
from local.events.schedule import Schedule, ScheduleSource, rate_seconds
from local.lambda_.configuration import FunctionConfiguration
from local.lambda_.logs import LogFolder
from local.lambda_.runtime import Function
from local.template.deployment import Deployment
from local.template.expand import Template
from local.template.resource_types import RESOURCE_TYPES
from tests.waiting import eventually

NOTES = """
    import json, os
    def handler(event, context):
        with open(os.environ["NOTES"], "a") as notes:
            notes.write(json.dumps(event) + "\\n")
        if os.environ.get("FAILS"):
            raise ValueError("a failure of the test")
"""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes.jsonl"


@pytest.fixture
def run(logs: LogFolder) -> Iterator[Callable[..., list[tuple[str, str]]]]:
    """Starts a schedule; returns the messages that it sends."""
    running: list[ScheduleSource] = []

    def start(function: Function, **settings: Any) -> list[tuple[str, str]]:
        sent: list[tuple[str, str]] = []
        schedule = Schedule(name="Hourly", function="Tested", rate_seconds=3600, **settings)
        running.append(ScheduleSource(schedule, function, lambda *message: sent.append(message), 0.0001, logs))
        running[-1].start()
        return sent

    yield start
    for source in running:
        source.stop()


def test_the_function_runs_repeatedly_in_scaled_time(
    make_function: Callable[..., Function], run: Callable[..., Any], notes: Path
) -> None:
    run(make_function(NOTES, NOTES=str(notes)))

    eventually(lambda: notes.exists() and len(notes.read_text().splitlines()) >= 3)
    event = json.loads(notes.read_text().splitlines()[0])
    assert (event["source"], event["detail-type"]) == ("aws.scheduler", "Scheduled Event")


def test_the_schedules_input_is_the_event(
    make_function: Callable[..., Function], run: Callable[..., Any], notes: Path
) -> None:
    run(make_function(NOTES, NOTES=str(notes)), input='{"limit": 3}')

    eventually(lambda: notes.exists() and notes.read_text().splitlines()[:1] == ['{"limit": 3}'])


def test_a_failed_run_does_not_stop_the_schedule(
    make_function: Callable[..., Function], run: Callable[..., Any], notes: Path, logs: LogFolder
) -> None:
    sent = run(make_function(NOTES, NOTES=str(notes), FAILS="1"), dead_letter_queue_url="queue", max_retries=0)

    eventually(lambda: notes.exists() and len(notes.read_text().splitlines()) >= 2)
    assert "a failure of the test" in (logs.folder / "errors.log").read_text()
    # The function accepted the event: its failure does not concern the scheduler.
    assert sent == []


def test_a_run_without_a_free_sandbox_is_sent_to_the_dead_letter_queue(
    make_function: Callable[..., Function], run: Callable[..., Any], notes: Path
) -> None:
    function = make_function(NOTES, NOTES=str(notes))
    function.stop()

    sent = run(function, dead_letter_queue_url="queue", max_retries=1, input="{}")

    eventually(lambda: sent)
    assert sent[0] == ("queue", "{}")


# ------------------------------------------------------------------------------------------------ the template


@pytest.mark.parametrize(
    ("expression", "seconds"), [("rate(1 hour)", 3600), ("rate(5 minutes)", 300), ("rate(2 days)", 172_800)]
)
def test_a_rate_is_converted_to_seconds(expression: str, seconds: float) -> None:
    assert rate_seconds("Hourly", expression) == seconds


@pytest.mark.parametrize("expression", ["cron(0 * * * ? *)", "at(2026-01-01T00:00:00)", "rate(1 week)", "rate( hour)"])
def test_unsupported_schedules_prevent_the_start(expression: str) -> None:
    with pytest.raises(LocalStackError, match=r"Hourly: schedule .* is not supported by the local stack"):
        rate_seconds("Hourly", expression)


def deploy(target: dict[str, Any], **properties: Any) -> Deployment:
    resources = {
        "Hourly": {
            "Type": "AWS::Scheduler::Schedule",
            "Properties": {"ScheduleExpression": "rate(1 hour)", "Target": target, **properties},
        },
    }
    deployment = Deployment(Template(Path(), resources, {}, {}), RESOURCE_TYPES, lambda _: None, lambda _: "")
    deployment.functions["Tested"] = FunctionConfiguration("Tested", "app.handler", Path())
    deployment.deploy()
    return deployment


FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:Tested"


def test_a_schedule_has_the_settings_of_the_template() -> None:
    retry = {"MaximumRetryAttempts": 5, "MaximumEventAgeInSeconds": 60}

    deployment = deploy({"Arn": FUNCTION, "RoleArn": "role", "RetryPolicy": retry}, FlexibleTimeWindow={"Mode": "OFF"})

    assert deployment.schedules == [Schedule("Hourly", "Tested", 3600, max_retries=5)]


def test_a_disabled_schedule_does_not_run() -> None:
    assert deploy({"Arn": FUNCTION}, State="DISABLED").schedules == []


@pytest.mark.parametrize(
    ("target", "properties", "names"),
    [
        ({"Arn": FUNCTION.replace("Tested", "Other")}, {}, "target is not a function"),
        ({"Arn": FUNCTION, "EcsParameters": {}}, {}, "Target.EcsParameters"),
        ({"Arn": FUNCTION}, {"StartDate": "2026-01-01"}, "StartDate"),
    ],
)
def test_unsupported_properties_prevent_the_start(
    target: dict[str, Any], properties: dict[str, Any], names: str
) -> None:
    with pytest.raises(LocalStackError, match=names):
        deploy(target, **properties)
