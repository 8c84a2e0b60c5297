"""Functions: their platform, their environment, and their log groups."""

import json
import re

import pytest

from tests.unit.template.expanded import EXPANDED, FUNCTIONS, RAW, REPOSITORY, RESOURCES, SETTINGS, deployed, of_type
from tests.unit.template.expanded import referred as referred_to

# No caller waits for these functions.
UNTRACED = {
    f"{name}Function" for name in ("ArchiveImages", "DispatchChanges", "PublishEvents", "SendWebhooks", "StartPolling")
}
LONGEST_TIMEOUT_SECONDS = 900  # Lambda's


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_runtime_and_architecture_of_its_layer(name: str) -> None:
    function = FUNCTIONS[name]

    assert (function["Runtime"], function["Architectures"]) == ("python3.13", ["arm64"])
    (layer,) = function["Layers"]
    built = RESOURCES[referred_to(layer)]
    assert built["Properties"]["CompatibleRuntimes"] == ["python3.13"]
    assert built["Properties"]["CompatibleArchitectures"] == ["arm64"]
    assert RAW["Resources"]["CatchlightLayer"]["Metadata"]["BuildArchitecture"] == "arm64"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_functions_folder_has_its_name(name: str) -> None:
    folder = re.sub(r"(?<!^)(?=[A-Z])", "_", name.removesuffix("Function")).lower()

    assert EXPANDED.path_of(FUNCTIONS[name]["Code"]) == REPOSITORY / "functions" / folder
    assert FUNCTIONS[name]["Handler"] == "app.handler"
    assert (REPOSITORY / "functions" / folder / "app.py").is_file()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_a_description_and_a_timeout(name: str) -> None:
    assert len(FUNCTIONS[name]["Description"]) > 20
    assert 3 < FUNCTIONS[name]["Timeout"] <= LONGEST_TIMEOUT_SECONDS


def test_every_function_has_its_own_role() -> None:
    assert len({referred_to(function["Role"]) for function in FUNCTIONS.values()}) == len(FUNCTIONS)


def test_every_function_has_its_own_log_group() -> None:
    groups = {referred_to(function["LoggingConfig"]["LogGroup"]) for function in FUNCTIONS.values()}

    assert len(groups) == len(FUNCTIONS)
    assert groups < of_type("AWS::Logs::LogGroup").keys()


@pytest.mark.parametrize("name", of_type("AWS::Logs::LogGroup"))
def test_logs_have_a_retention_period(name: str) -> None:
    # The template has all log groups: a group that Lambda or API Gateway creates would keep its logs for ever.
    assert of_type("AWS::Logs::LogGroup")[name]["RetentionInDays"] == {"Ref": "LogRetentionDays"}


@pytest.mark.parametrize("name", of_type("AWS::Logs::LogGroup"))
def test_a_log_group_is_deleted_with_its_stack(name: str) -> None:
    """A retained log group would make the next deployment fail, as its log group would have the same name."""
    assert RESOURCES[name].get("DeletionPolicy", "Delete") == "Delete"
    assert RESOURCES[name].get("UpdateReplacePolicy", "Delete") == "Delete"


@pytest.mark.parametrize("name", SETTINGS)
def test_the_environment_contains_the_settings_and_nothing_else(name: str) -> None:
    given = FUNCTIONS[name]["Environment"]["Variables"].keys()
    # The table's name is in Globals; DispatchChanges reads the stream.
    ours = {variable for variable in given if not variable.startswith(("POWERTOOLS_", "PYDANTIC_"))}
    read = {field.upper() for field in SETTINGS[name].model_fields}

    assert ours - {"TASKS_TABLE"} == read - {"TASKS_TABLE"}
    assert read <= ours


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_environment_contains_a_secret(name: str) -> None:
    for variable, value in FUNCTIONS[name]["Environment"]["Variables"].items():
        if "SECRET" in variable:
            assert RESOURCES[referred_to(value)]["Type"] == "AWS::SecretsManager::Secret"  # its ARN
        assert "resolve:secretsmanager" not in json.dumps(value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_metrics_have_the_stack_as_their_service(name: str) -> None:
    given = FUNCTIONS[name]["Environment"]["Variables"]

    assert given["POWERTOOLS_METRICS_NAMESPACE"] == "Catchlight"
    assert given["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_traced_by_default(name: str) -> None:
    if name in UNTRACED:
        assert "TracingConfig" not in deployed()[name]
    else:
        assert deployed()[name]["TracingConfig"] == {"Mode": "Active"}
        assert "TracingConfig" not in deployed(Tracing="Disabled")[name]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_concurrency_is_reserved_by_default(name: str) -> None:
    assert "ReservedConcurrentExecutions" not in deployed()[name]
    assert deployed(ReservedConcurrency="50")[name]["ReservedConcurrentExecutions"] == "50"


def test_no_function_has_a_function_url() -> None:
    assert "AWS::Lambda::Url" not in {resource["Type"] for resource in RESOURCES.values()}
