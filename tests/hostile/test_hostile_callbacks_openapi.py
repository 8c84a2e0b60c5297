"""Tests that the endpoint's responses to requests generated from docs/callback-api.openapi.yaml match the document."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from catchlight import errors
from catchlight.providers import PROVIDERS
from tests.hostile.hostile_callbacks import HOSTILE
from tests.hostile.hostile_callbacks_endpoint import ROUTE, Endpoint, an_endpoint
from tests.hostile.in_process import InProcess
from tests.integration.conftest import REPOSITORY
from tests.integration.functions import TOKEN

DOCUMENT: dict[str, Any] = yaml.load((REPOSITORY / "docs/callback-api.openapi.yaml").read_text(), yaml.CSafeLoader)
PATH = "/callbacks/{provider}/{token}"
OPERATION = schemathesis.openapi.from_dict(DOCUMENT)[PATH]["POST"]
POST = DOCUMENT["paths"][PATH]["post"]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 200  # tests/searches/test_callbacks_document.py generates 600
MODES = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with an_endpoint() as endpoint:
        endpoint.use_keys("none")
        yield endpoint


@pytest.fixture(scope="module")
def session(endpoint: Endpoint) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", InProcess(endpoint.respond))
        yield session


def send_generated_callbacks(session: requests.Session, examples: int) -> Counter[int]:
    """Sends callbacks that are generated from the document, and checks each response against it.

    Returns the number of responses by status.
    """
    responses: Counter[int] = Counter()

    # Without shrinking: schemathesis prints a failing request as a command for curl.
    @settings(
        max_examples=examples,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(
        case=st.one_of(*[OPERATION.as_strategy(generation_mode=mode) for mode in MODES]), token_choice=st.integers(0, 7)
    )
    def send(case: schemathesis.Case[Any], token_choice: int) -> None:
        if token_choice:  # seven of eight requests use the valid token: all others get 401
            case.path_parameters["token"] = TOKEN
        response = case.call_and_validate("http://catchlight.example", session=session, checks=CHECKS)
        responses[response.status_code] += 1

    send()
    return responses


def test_generated_callbacks_get_documented_responses(session: requests.Session) -> None:
    responses = send_generated_callbacks(session, EXAMPLES)

    assert responses.total() >= EXAMPLES / 2
    assert responses.keys() >= {200, 401, 422}


def test_every_error_response_is_documented() -> None:
    refusals = {error.status.value: error.code for error in errors.RequestError.__subclasses__()}
    documented = {int(status) for status in POST["responses"]}

    assert documented == {200, 429, 503, *refusals}
    for status, code in refusals.items():
        assert f"#/components/schemas/{code}'" in str(POST["responses"][str(status)])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_callbacks_get_documented_responses(endpoint: Endpoint, name: str) -> None:
    hostile = HOSTILE[name]

    response = endpoint.send(hostile)

    schema = POST["responses"][str(response.status)]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(
        yaml.safe_load(response.body)
    )
    endpoint.use_keys("none")


def test_the_document_has_the_providers_and_the_path_of_the_endpoint() -> None:
    provider, token, *_ = (parameter["schema"] for parameter in POST["parameters"])

    assert provider["enum"] == list(PROVIDERS)
    assert ROUTE.path.replace("+", "") == PATH
    assert token["pattern"] == "^[A-Za-z0-9_-]{32,128}$"


def test_the_responses_to_get_and_head_are_documented() -> None:
    operations = DOCUMENT["paths"][PATH]

    assert operations.keys() == {"post", "get", "head"}
    assert operations["get"]["responses"].keys() == operations["head"]["responses"].keys() == {"200", "429", "503"}
    assert operations["get"]["responses"]["200"]["content"].keys() == {"text/plain"}
