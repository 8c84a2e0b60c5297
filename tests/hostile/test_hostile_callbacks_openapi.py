"""The endpoint answers requests that are generated from docs/callback-api.openapi.yaml as the document says."""

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

DOCUMENT: dict[str, Any] = yaml.safe_load((REPOSITORY / "docs/callback-api.openapi.yaml").read_text())
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
    """Sends so many callbacks that are generated from the document, and checks each response against it.

    Returns how many responses had each status.
    """
    answered: Counter[int] = Counter()

    # Without shrinking: schemathesis prints a failing request as a command for curl.
    @settings(
        max_examples=examples,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(case=st.one_of(*[OPERATION.as_strategy(generation_mode=mode) for mode in MODES]), stranger=st.integers(0, 7))
    def answer(case: schemathesis.Case[Any], stranger: int) -> None:
        if stranger:  # most of them know the token; strangers get no further than that
            case.path_parameters["token"] = TOKEN
        response = case.call_and_validate("http://catchlight.example", session=session, checks=CHECKS)
        answered[response.status_code] += 1

    answer()
    return answered


def test_what_is_made_up_is_answered_as_documented(session: requests.Session) -> None:
    answered = send_generated_callbacks(session, EXAMPLES)

    assert answered.total() >= EXAMPLES / 2
    assert answered.keys() >= {200, 401, 422}


def test_the_document_knows_every_refusal() -> None:
    refusals = {error.status.value: error.code for error in errors.RequestError.__subclasses__()}
    documented = {int(status) for status in POST["responses"]}

    assert documented == {200, 429, 503, *refusals}
    for status, code in refusals.items():
        assert f"#/components/schemas/{code}'" in str(POST["responses"][str(status)])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_callbacks_are_answered_as_documented(endpoint: Endpoint, name: str) -> None:
    hostile = HOSTILE[name]

    response = endpoint.send(hostile)

    answer = POST["responses"][str(response.status)]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**answer, "components": DOCUMENT["components"]}).validate(
        yaml.safe_load(response.body)
    )
    endpoint.use_keys("none")


def test_the_document_is_of_this_endpoint() -> None:
    provider, token, *_ = (parameter["schema"] for parameter in POST["parameters"])

    assert provider["enum"] == list(PROVIDERS)
    assert ROUTE.path.replace("+", "") == PATH
    assert token["pattern"] == "^[A-Za-z0-9_-]{32,128}$"


def test_get_and_head_have_the_answers_that_the_stack_gives() -> None:
    operations = DOCUMENT["paths"][PATH]

    assert operations.keys() == {"post", "get", "head"}
    assert operations["get"]["responses"].keys() == operations["head"]["responses"].keys() == {"200", "429", "503"}
    assert operations["get"]["responses"]["200"]["content"].keys() == {"text/plain"}
