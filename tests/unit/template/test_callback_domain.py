"""CallbackDomain: a custom domain for callback URLs. Without it, no resource of it exists."""

import re
from typing import Any

import pytest

from local.template.parse import read_template
from tests.unit.template.expanded import EXPANDED, RAW, REPOSITORY, deployed, resolver_with

DOMAIN = {
    "CallbackDomain": "callbacks.example.com",
    "CallbackCertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/0-1",
}
ZONE = {"CallbackHostedZoneId": "Z0123456789ABC"}
OF_THE_DOMAIN = {"CallbackDomainName", "CallbackDomainMapping", "CallbackDomainRecord"}


WRITTEN_OUTPUTS = read_template((REPOSITORY / "template.yaml").read_text())["Outputs"]


def outputs(**parameters: str) -> dict[str, Any]:
    resolver = resolver_with(**parameters)
    return {
        name: resolver.resolve(output["Value"])
        for name, output in WRITTEN_OUTPUTS.items()
        if "Condition" not in output or resolver.condition(output["Condition"])
    }


@pytest.mark.parametrize("parameters", [{}, ZONE])
def test_without_a_domain_no_resource_is_created(parameters: dict[str, str]) -> None:
    assert not OF_THE_DOMAIN & deployed(**parameters).keys()
    assert "execute-api" in outputs(**parameters)["CallbackUrlPattern"]
    assert "CallbackDomainTarget" not in outputs(**parameters)


def test_the_domain_is_mapped_to_the_callback_api() -> None:
    resources = deployed(**DOMAIN)

    assert resources["CallbackDomainName"] == {
        "DomainName": DOMAIN["CallbackDomain"],
        "DomainNameConfigurations": [
            {
                "CertificateArn": DOMAIN["CallbackCertificateArn"],
                "EndpointType": "REGIONAL",
                "SecurityPolicy": "TLS_1_2",
            }
        ],
    }
    stage = EXPANDED.resources["CallbackApiApiGatewayDefaultStage"]["Properties"]["StageName"]
    assert resources["CallbackDomainMapping"] == {
        "ApiId": "CallbackApi",
        "DomainName": "CallbackDomainName",
        "Stage": stage,
    }
    assert "CallbackDomainRecord" not in resources


def test_the_dns_record_is_created_in_the_given_zone() -> None:
    assert deployed(**DOMAIN, **ZONE)["CallbackDomainRecord"] == {
        "HostedZoneId": "Z0123456789ABC",
        "Name": "callbacks.example.com",
        "Type": "A",
        "AliasTarget": {
            "DNSName": "CallbackDomainName.RegionalDomainName",
            "HostedZoneId": "CallbackDomainName.RegionalHostedZoneId",
        },
    }


def test_callback_urls_have_the_domain() -> None:
    url = "https://callbacks.example.com"
    variables = deployed(**DOMAIN)["ServeTasksApiFunction"]["Environment"]["Variables"]

    assert variables["CALLBACK_BASE_URL"] == url
    assert outputs(**DOMAIN)["CallbackUrlPattern"] == f"{url}/callbacks/PROVIDER/TOKEN"
    assert outputs(**DOMAIN)["CallbackDomainTarget"] == "CallbackDomainName.RegionalDomainName"


@pytest.mark.parametrize(
    "value", ["https://callbacks.example.com", "callbacks", "Callbacks.example.com", "a.example/x"]
)
def test_a_domain_is_a_host_name(value: str) -> None:
    pattern = RAW["Parameters"]["CallbackDomain"]["AllowedPattern"]

    assert re.fullmatch(pattern, DOMAIN["CallbackDomain"])
    assert not re.fullmatch(pattern, value)
