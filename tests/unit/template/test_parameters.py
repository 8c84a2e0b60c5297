"""Parameters and outputs: described, bounded, used, and accepted by the code that reads them."""

import json
import re

import pytest

from catchlight import settings
from tests.unit.template.expanded import EXPANDED, RAW, RESOURCES

PARAMETERS = RAW["Parameters"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_is_described_bounded_and_has_a_default(name: str) -> None:
    parameter = PARAMETERS[name]

    assert len(parameter["Description"]) > 20
    if parameter["Type"] == "Number" and "AllowedValues" not in parameter:
        assert parameter["MinValue"] <= parameter["Default"] <= parameter["MaxValue"]
    elif "AllowedPattern" in parameter:
        assert re.fullmatch(parameter["AllowedPattern"], parameter["Default"])
        assert parameter["ConstraintDescription"]
    else:
        assert parameter["Default"] in parameter["AllowedValues"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_is_used(name: str) -> None:
    text = json.dumps(RESOURCES) + json.dumps(EXPANDED.conditions)

    # Tracing is resolved by SAM itself.
    assert name == "Tracing" or f'{{"Ref": "{name}"}}' in text


def test_every_parameter_is_shown_in_one_group() -> None:
    groups = RAW["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    shown = [name for group in groups for name in group["Parameters"]]

    assert sorted(shown) == sorted(PARAMETERS)


@pytest.mark.parametrize("name", EXPANDED.conditions)
def test_a_condition_is_used(name: str) -> None:
    is_condition_of_a_resource = any(resource.get("Condition") == name for resource in RESOURCES.values())

    assert is_condition_of_a_resource or f'"Fn::If": ["{name}"' in json.dumps(RESOURCES)


@pytest.mark.parametrize(
    "value", ["flux-kontext=https://api.apikley.ru", "a=https://a.example,b=https://b.example:8443", ""]
)
def test_base_urls_that_the_function_accepts(value: str) -> None:
    assert re.fullmatch(PARAMETERS["ProviderBaseUrls"]["AllowedPattern"], value)
    assert settings.PollTasksSettings.from_environment(poll_environment(value)).provider_base_urls.keys() == {
        pair.partition("=")[0] for pair in value.split(",") if pair
    }


@pytest.mark.parametrize(
    "value", ["https://api.apikley.ru", "flux-kontext=http://x.example", "flux-kontext=", "a=https://"]
)
def test_base_urls_without_https_provider_or_host_are_refused(value: str) -> None:
    assert not re.fullmatch(PARAMETERS["ProviderBaseUrls"]["AllowedPattern"], value)


def poll_environment(base_urls: str) -> dict[str, str]:
    environment = {name.upper(): "1" for name in settings.PollTasksSettings.model_fields}
    return environment | {"PROVIDER_BASE_URLS": base_urls}


@pytest.mark.parametrize("value", ["", "*", "images.example", "*.cdn.example,images.example"])
def test_image_hosts_that_the_function_accepts(value: str) -> None:
    assert re.fullmatch(PARAMETERS["AdditionalImageHosts"]["AllowedPattern"], value)


@pytest.mark.parametrize(
    "value", ["https://images.example", "images.example/", "*images.example", "a.example, b.example", "*,*"]
)
def test_malformed_image_hosts_are_refused(value: str) -> None:
    assert not re.fullmatch(PARAMETERS["AdditionalImageHosts"]["AllowedPattern"], value)


@pytest.mark.parametrize("name", RAW["Outputs"])
def test_an_output_has_a_description(name: str) -> None:
    assert len(RAW["Outputs"][name]["Description"]) > 20
