"""Every hostile callback gets its required answer, changes nothing it should not, and its sender learns nothing."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from functions.receive_callback import app
from tests.canary_secrets import OTHER_TOKEN
from tests.hostile.hostile_callbacks import HOSTILE, MAX_BODY_BYTES, SUCCESS, TASK_ID
from tests.hostile.hostile_callbacks_endpoint import Endpoint, an_endpoint
from tests.integration.functions import TOKEN, a_callback

TASK = f"flux-kontext#{TASK_ID}"
KNOWN: dict[str, dict[str, Any]] = {
    "PENDING": {"rank": 0},
    "TIMED_OUT": {"rank": 10, "failure": {"reason": "NO_RESULT", "message": ""}},
    "FAILED": {"rank": 20, "failure": {"reason": "INTERNAL", "message": ""}},
    "ARCHIVED": {"rank": 50, "images": []},
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Endpoint]:
    """Provides one endpoint for all requests, because an account for each of them would take long."""
    with an_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(shared: Endpoint) -> Endpoint:
    shared.empty()
    return shared


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 80
    assert MAX_BODY_BYTES == app.MAX_BODY_BYTES


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_callback_gets_its_answer_and_nothing_else(endpoint: Endpoint, name: str) -> None:
    hostile = HOSTILE[name]

    response = endpoint.send(hostile)

    body = json.loads(response.body)
    assert (response.status, body.get("error")) == (hostile.status, hostile.error)
    assert dict(response.headers) == {"content-type": "application/json"}
    if hostile.status == 200:
        assert body == {"status": "received"}
        assert [item["provider"] for item in endpoint.store.items()] == ["flux-kontext"]
        return
    assert body.keys() == ({"error", "message"} if hostile.error else {"message"})
    assert body["message"].isascii()
    assert TOKEN not in response.body.decode()
    assert endpoint.store.items() == []
    # With the right token and in an unknown format: a later version may read it.
    assert endpoint.kept() == (hostile.error in ("malformed_body", "invalid_callback", "unknown_provider"))


def test_refusals_are_the_same_whether_the_task_is_known_or_not(endpoint: Endpoint) -> None:
    refused = {name: hostile for name, hostile in HOSTILE.items() if hostile.status != 200}
    unknown = {name: endpoint.send(hostile) for name, hostile in refused.items()}
    for status, attributes in KNOWN.items():
        endpoint.store.put(TASK, status=status, **attributes)
        before = endpoint.store.items()

        assert {name: endpoint.send(hostile) for name, hostile in refused.items()} == unknown, status

        assert endpoint.store.items() == before


@pytest.mark.parametrize("status", [None, *KNOWN])
def test_who_has_the_token_does_not_learn_what_is_known(endpoint: Endpoint, status: str | None) -> None:
    if status:
        endpoint.store.put(TASK, status=status, **KNOWN[status])

    taken = [hostile for hostile in HOSTILE.values() if hostile.status == 200]

    assert {endpoint.send(hostile).body for hostile in taken} == {b'{"status": "received"}'}


def test_all_requests_with_a_wrong_token_get_the_same_answer(endpoint: Endpoint) -> None:
    strangers = [hostile for hostile in HOSTILE.values() if hostile.status == 401 and hostile.keys == "none"]
    assert len(strangers) > 25

    assert len({endpoint.send(hostile).body for hostile in strangers}) == 1


def test_whoever_lacks_the_webhook_key_gets_one_answer_to_everything(endpoint: Endpoint) -> None:
    unsigned = [
        hostile
        for hostile in HOSTILE.values()
        if hostile.status == 401 and hostile.keys == "one" and TOKEN in hostile.path
    ]
    assert len(unsigned) > 20

    assert len({endpoint.send(hostile).body for hostile in unsigned}) == 1


# ------------------------------------------------------------------------------------------------ no HTTP sends these


@pytest.mark.parametrize("token", [TOKEN, OTHER_TOKEN])
@pytest.mark.parametrize("body", ["$$$", "abc", "QQ", "QUJD\n$", "é" * 8, "\ud800", "QUJDRA==="])
def test_base64_that_is_none_is_refused(endpoint: Endpoint, token: str, body: str) -> None:
    status, answered = endpoint.handle(a_callback(body, token=token, isBase64Encoded=True))

    assert status in (400, 401)
    assert answered.keys() == {"error", "message"}
    assert (endpoint.store.items(), endpoint.kept()) == ([], 0)


def test_a_long_body_in_base64_is_measured_decoded(endpoint: Endpoint) -> None:
    exact, longer = (base64.b64encode(SUCCESS.ljust(MAX_BODY_BYTES + n)).decode() for n in (0, 1))

    assert endpoint.handle(a_callback(exact, isBase64Encoded=True))[0] == 200
    assert endpoint.handle(a_callback(longer, isBase64Encoded=True))[0] == 413


@pytest.mark.parametrize("headers", [None, {}, {"content-type": ""}, {"X-WEBHOOK-SIGNATURE": ""}])
def test_headers_may_be_missing(endpoint: Endpoint, headers: dict[str, str] | None) -> None:
    assert endpoint.handle(a_callback(SUCCESS.decode(), headers=headers))[0] == 200
