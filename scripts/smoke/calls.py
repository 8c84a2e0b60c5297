"""Runs each built function against a simulated AWS on loopback, and checks its responses, calls and permissions."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from local.lambda_.configuration import FunctionConfiguration, sandbox_environment
from local.template.expand import Template, load_template
from scripts.smoke.account import REGION, Account, Call, account
from scripts.smoke.api_steps import SERVE_TASKS_API
from scripts.smoke.callback_steps import RECEIVE_CALLBACK, RECEIVE_CALLBACK_KEEPING_DELIVERIES
from scripts.smoke.change_steps import DISPATCH_CHANGES, PUBLISH_EVENTS
from scripts.smoke.grants import check_grants, grants_of, requests_of_lambda, resolver
from scripts.smoke.steps import OTHER_HOSTS, USUAL, WEBHOOK_URL, Step
from scripts.smoke.task_steps import ARCHIVE_IMAGES, POLL_TASKS, RECONCILE_TASKS, START_POLLING
from scripts.smoke.webhook_steps import SEND_WEBHOOKS

SANDBOX = Path(__file__).with_name("sandbox.py")
# Steps by function. They cover every AWS operation and the errors that the code handles.
STEPS: Mapping[str, Sequence[Step]] = {
    "ReceiveCallbackFunction": RECEIVE_CALLBACK,
    "ServeTasksApiFunction": SERVE_TASKS_API,
    "DispatchChangesFunction": DISPATCH_CHANGES,
    "StartPollingFunction": START_POLLING,
    "PollTasksFunction": POLL_TASKS,
    "ArchiveImagesFunction": ARCHIVE_IMAGES,
    "PublishEventsFunction": PUBLISH_EVENTS,
    "ReconcileTasksFunction": RECONCILE_TASKS,
    "SendWebhooksFunction": SEND_WEBHOOKS,
}
# Parameters with which the template creates all functions.
PARAMETERS: Mapping[str, str] = {"WebhookUrl": WEBHOOK_URL}
# Other parameter values, with which a function's role has further permissions, and the steps that need these.
VARIANTS: Sequence[tuple[str, Mapping[str, str], Sequence[Step]]] = (
    ("ReceiveCallbackFunction", {"KeepDeliveries": "30"}, RECEIVE_CALLBACK_KEEPING_DELIVERIES),
)
MIN_CERTIFICATES = 100
# Limit for a function that hangs. Normally each function takes some seconds.
MAX_SECONDS_PER_FUNCTION = 900


def check_calls(
    folder: Path, layer: Path, *, only: Container[str] | None = None, calls: list[Call] | None = None
) -> Iterator[str]:
    """Yields problems of the functions in a built folder, each with the function's and the step's name.

    `only`: names of the functions to check (default: all). All calls that they make are appended to `calls`.
    """
    template = load_template(folder / "template.yaml", PARAMETERS)
    functions = template.of_type("AWS::Lambda::Function")
    for name in sorted(set(functions) ^ STEPS.keys()):
        yield f"{name} is in only one of template.yaml and scripts/smoke/calls.py: add it to the other"
    with tempfile.TemporaryDirectory() as scratch, account(Path(scratch), OTHER_HOSTS) as aws:
        aws.usual.update(USUAL)
        for name in functions:
            if only is None or name in only:
                yield from _check_steps(template, name, STEPS.get(name, ()), layer, aws)
        for name, parameters, steps in VARIANTS:
            if only is None or name in only:
                varied = load_template(folder / "template.yaml", {**PARAMETERS, **parameters})
                yield from _check_steps(varied, name, steps, layer, aws)
        if calls is not None:
            calls += aws.calls


def _check_steps(template: Template, name: str, steps: Sequence[Step], layer: Path, aws: Account) -> Iterator[str]:
    """Yields problems of a function with its steps, and of its role with all calls that it has made so far."""
    yield from (f"{name}: {problem}" for problem in _check_function(template, name, steps, layer, aws))
    made = [call for call in aws.calls if call.function == name]
    yield from check_grants(name, grants_of(template, name), made, requests_of_lambda(template, name))


def _check_function(template: Template, name: str, steps: Sequence[Step], layer: Path, aws: Account) -> Iterator[str]:
    properties = template.resources[name]["Properties"]
    folder = template.path_of(properties["Code"])
    configuration = FunctionConfiguration(
        name=name,
        handler=properties["Handler"],
        folder=folder,
        layers=(layer,),
        environment=resolver(template).resolve(properties["Environment"]["Variables"]),
    )
    environment = sandbox_environment(configuration, {}) | {"AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
    with Sandbox(configuration.handler, [folder, layer], environment, aws) as sandbox:
        loaded = sandbox.receive()
        if "error" in loaded:
            yield f"cannot be loaded: {loaded['error']}"
            return
        for step in steps:
            problems = list(_check_step(step, sandbox, aws))
            yield from (f"{step.name}: {problem}" for problem in problems)
            if problems:
                yield sandbox.log()
                return
        yield from _check_end(sandbox.end(), layer)


def _check_step(step: Step, sandbox: "Sandbox", aws: Account) -> Iterator[str]:
    aws.scripted.clear()
    for operation, answers in step.answers.items():
        aws.scripted[operation].extend(answers)
    before = len(aws.calls)
    answered = sandbox.invoke(step.event)
    yield from aws.problems
    aws.problems.clear()
    if "error" in answered:
        yield f"the handler raised {answered['error']}"
        return
    calls = aws.calls[before:]
    response = answered["response"]
    if not _contains(response, step.response):
        yield f"the handler returned {json.dumps(response)} instead of {json.dumps(step.response)}"
    for operation, left in aws.scripted.items():
        if left:
            yield f"{len(left)} expected {operation} calls were not made"
    if step.follow_up:
        yield from step.follow_up(response, calls, aws)


def _contains(answered: Any, expected: Any) -> bool:
    """Whether an answer contains all expected members."""
    if isinstance(expected, Mapping):
        return isinstance(answered, Mapping) and all(
            name in answered and _contains(answered[name], value) for name, value in expected.items()
        )
    return bool(answered == expected)


def _check_end(end: dict[str, Any], layer: Path) -> Iterator[str]:
    if "error" in end:
        yield f"the sandbox ended with {end['error']}"
        return
    for file in end["foreign"]:
        yield f"{file} was imported, but is not part of the artefact"
    for bundle, certificates in end["bundles"].items():
        if not Path(bundle).is_relative_to(layer) or certificates < MIN_CERTIFICATES:
            yield f"{certificates} CA certificates were loaded from {bundle} instead of a complete bundle in the layer"
    if not end["bundles"]:
        yield "no CA bundle was loaded"


class Sandbox:
    """Runs one function in a process that cannot import anything from this environment."""

    def __init__(self, handler: str, path: list[Path], environment: Mapping[str, str], aws: Account) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        reading, writing = os.pipe()
        self._process = subprocess.Popen(
            # -I: ignores the user's variables and folders. -S: no site-packages. -B: writes no bytecode.
            [sys.executable, "-I", "-S", "-B", str(SANDBOX)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            pass_fds=[writing],
            env=environment,
            text=True,
        )
        os.close(writing)
        assert self._process.stdin
        self._stdin = self._process.stdin
        self._watchdog = threading.Timer(MAX_SECONDS_PER_FUNCTION, self._process.kill)
        self._watchdog.start()
        self._answers = os.fdopen(reading)
        self._send(
            {
                "answers": writing,
                "port": aws.port,
                "authority": str(aws.authority),
                "path": [str(folder) for folder in path],
                "handler": handler,
            }
        )

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):  # input that the process has not read
            self._stdin.close()
        self._answers.close()
        self._log.close()

    def invoke(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Calls the handler with an event; returns its response (`response`) or traceback (`error`)."""
        self._send(event)
        return self.receive()

    def end(self) -> dict[str, Any]:
        """Ends the function. Returns the foreign modules that it imported and the CA bundles that it loaded."""
        self._stdin.close()
        return self.receive()

    def log(self) -> str:
        """Returns the end of the function's log."""
        self._log.flush()
        self._log.seek(0)
        return f"its log ends with:\n{self._log.read().decode(errors='replace')[-3000:]}"

    def receive(self) -> dict[str, Any]:
        """Reads the next answer of the process; if it has ended, returns its log as an error."""
        line = self._answers.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": self.log()}
        return answer

    def _send(self, message: Mapping[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the process has ended: `receive` returns the reason
            self._stdin.write(json.dumps(message) + "\n")
            self._stdin.flush()
