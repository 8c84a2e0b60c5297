"""Tests that the smoke test detects each fault of the built layer, each missing grant, and an unused grant."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from local import REPOSITORY
from local.artefact import Artefact
from local.permissions.decision import Grant
from local.template.expand import load_template
from scripts.smoke.account import Call
from scripts.smoke.calls import PARAMETERS, check_calls
from scripts.smoke.grants import check_grants, grants_of, requests_of_lambda
from scripts.smoke.imports import check_imports
from tests.artefact.conftest import Copy, copy_of, remove_bundles

LAYER = "CatchlightLayer/python"
# With the parameters of `VARIANTS`, because `calls` contains the calls of their steps.
TEMPLATE = load_template(REPOSITORY / "template.yaml", {**PARAMETERS, "KeepDeliveries": "30"})
FUNCTIONS = TEMPLATE.of_type("AWS::Lambda::Function")


def strip_documentation(part: Any) -> None:
    """Removes all documentation, even that of client parameters, which botocore requires."""
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        strip_documentation(inner)
    if isinstance(part, dict) and isinstance(part.get("documentation"), str):
        del part["documentation"]


def strip_checksums(model: Any) -> None:
    for operation in model["operations"].values():
        operation.pop("httpChecksum", None)


def lose_error(operation: str, error: str) -> Callable[[Any], None]:
    def lose(model: Any) -> None:
        model["shapes"].pop(error)
        errors = model["operations"][operation]["errors"]
        errors[:] = [each for each in errors if each["shape"] != error]

    return lose


def shorten_bundle(copy: Copy) -> None:
    end = b"-----END CERTIFICATE-----\n"
    copy.change(f"{LAYER}/certifi/cacert.pem", lambda bundle: bundle[: bundle.index(end) + len(end)])


def rename_handler(copy: Copy) -> None:
    # Python would load the bytecode without reading the source.
    copy.remove("PublishEventsFunction/__pycache__")
    copy.change("PublishEventsFunction/app.py", lambda source: source.replace(b"def handler(", b"def main("))


S3 = "s3/2006-03-01"
FAULTS: dict[str, tuple[str, Callable[[Copy], None]]] = {
    "documentation of S3's parameters": (
        "ReceiveCallbackFunction",
        lambda copy: copy.change_data(f"{S3}/service-2.json", strip_documentation),
    ),
    "documentation of S3's parameters, for a link": (
        "ServeTasksApiFunction",
        lambda copy: copy.change_data(f"{S3}/service-2.json", strip_documentation),
    ),
    "checksums": ("ArchiveImagesFunction", lambda copy: copy.change_data(f"{S3}/service-2.json", strip_checksums)),
    "S3's endpoint rules": (
        "ArchiveImagesFunction",
        lambda copy: copy.remove(f"{LAYER}/botocore/data/{S3}/endpoint-rule-set-1.json"),
    ),
    "any CA bundle": ("PublishEventsFunction", remove_bundles),
    "all certificates but one": ("PublishEventsFunction", shorten_bundle),
    "a provider": (
        "ReceiveCallbackFunction",
        lambda copy: copy.remove(f"{LAYER}/catchlight/providers/nanobanana.py"),
    ),
    "a service": ("StartPollingFunction", lambda copy: copy.remove(f"{LAYER}/botocore/data/stepfunctions")),
    "partitions": ("PublishEventsFunction", lambda copy: copy.remove(f"{LAYER}/botocore/data/partitions.json")),
    "the error of an execution that was started before": (
        "StartPollingFunction",
        lambda copy: copy.change_data(
            "stepfunctions/2016-11-23/service-2.json", lose_error("StartExecution", "ExecutionAlreadyExists")
        ),
    ),
    "the error of a secret that was never rotated": (
        "ReceiveCallbackFunction",
        lambda copy: copy.change_data(
            "secretsmanager/2017-10-17/service-2.json", lose_error("GetSecretValue", "ResourceNotFoundException")
        ),
    ),
    "the item of a condition that does not hold": (
        "ReceiveCallbackFunction",
        lambda copy: copy.change_data(
            "dynamodb/2012-08-10/service-2.json",
            lambda model: model["shapes"]["ConditionalCheckFailedException"]["members"].pop("Item"),
        ),
    ),
    "a dependency": ("PublishEventsFunction", lambda copy: copy.remove(f"{LAYER}/jmespath")),
    "a function's handler": ("PublishEventsFunction", rename_handler),
    "a function's module": ("PublishEventsFunction", lambda copy: copy.remove("PublishEventsFunction/app.py")),
}


@pytest.mark.parametrize("missing", FAULTS)
def test_each_fault_of_the_layer_fails_a_call(built: Artefact, tmp_path: Path, missing: str) -> None:
    function, fault = FAULTS[missing]
    copy = copy_of(built, tmp_path / "build")
    fault(copy)

    problems = check_calls(copy.folder, copy.layer, only=[function])

    # The function itself fails: problems of its permissions have no colon after its name.
    assert [problem for problem in problems if problem.startswith(f"{function}: ")]


def test_modules_that_functions_import_later_are_checked(built: Artefact, tmp_path: Path) -> None:
    copy = copy_of(built, tmp_path / "build")
    assert list(check_imports(copy.layer)) == []
    copy.remove(f"{LAYER}/httpcore")
    copy.change(f"{LAYER}/catchlight/providers/acedata.py", lambda source: source + b"\nimport no_such_module\n")

    problems = "".join(check_imports(copy.layer))

    assert "catchlight.outbound_http cannot be imported from the layer" in problems
    assert "no_such_module cannot be imported from the layer" in problems


def test_a_missing_profile_of_the_user_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "names-no-profile")

    assert load_template(REPOSITORY / "template.yaml", {}).of_type("AWS::Lambda::Function") == FUNCTIONS


# ------------------------------------------------------------------------------------------------ grants


@pytest.fixture(scope="module")
def calls(built: Artefact) -> Sequence[Call]:
    """Returns all calls of all functions."""
    made: list[Call] = []
    assert list(check_calls(built.folder, built.layer, calls=made)) == []
    return made


def made_by(function: str, calls: Sequence[Call]) -> list[Call]:
    return [call for call in calls if call.function == function]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_missing_grant_is_found(function: str, calls: Sequence[Call]) -> None:
    granted = grants_of(TEMPLATE, function)
    assert granted

    for grant in granted:
        problems = list(
            check_grants(function, granted - {grant}, made_by(function, calls), requests_of_lambda(TEMPLATE, function))
        )

        assert problems
        assert all(f"{function} has no grant in template.yaml for {grant.action}" in p for p in problems)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_unused_grant_is_found(function: str, calls: Sequence[Call]) -> None:
    more = Grant("policy", function, "dynamodb:Scan", "arn:aws:dynamodb:eu-central-1:123456789012:table/TasksTable")

    (problem,) = check_grants(
        function,
        grants_of(TEMPLATE, function) | {more},
        made_by(function, calls),
        requests_of_lambda(TEMPLATE, function),
    )

    assert f"{function} is granted dynamodb:Scan on {more.resource}, and makes no such call in this test" in problem
