"""Hostile callbacks get the required response, do not change tasks, and reveal nothing to their sender."""

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
    """Provides one endpoint for all tests, because it takes long to create an account for each of them."""
    with an_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(shared: Endpoint) -> Endpoint:
    shared.delete_all()
    return shared


def test_there_are_many_hostile_callbacks() -> None:
    assert len(HOSTILE) >= 80
    assert MAX_BODY_BYTES == app.MAX_BODY_BYTES


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_callback_gets_the_required_response(endpoint: Endpoint, name: str) -> None:
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
    # A delivery with the valid token in an unknown format is kept: a later version may read it.
    assert endpoint.kept_count() == (hostile.error in ("malformed_body", "invalid_callback", "unknown_provider"))


def test_rejections_do_not_reveal_whether_a_task_is_known(endpoint: Endpoint) -> None:
    rejected = {name: hostile for name, hostile in HOSTILE.items() if hostile.status != 200}
    unknown = {name: endpoint.send(hostile) for name, hostile in rejected.items()}
    for status, attributes in KNOWN.items():
        endpoint.store.put(TASK, status=status, **attributes)
        before = endpoint.store.items()

        assert {name: endpoint.send(hostile) for name, hostile in rejected.items()} == unknown, status

        assert endpoint.store.items() == before


@pytest.mark.parametrize("status", [None, *KNOWN])
def test_accepted_callbacks_do_not_reveal_whether_a_task_is_known(endpoint: Endpoint, status: str | None) -> None:
    if status:
        endpoint.store.put(TASK, status=status, **KNOWN[status])

    accepted = [hostile for hostile in HOSTILE.values() if hostile.status == 200]

    assert {endpoint.send(hostile).body for hostile in accepted} == {b'{"status": "received"}'}


def test_all_requests_with_a_wrong_token_get_the_same_response(endpoint: Endpoint) -> None:
    unauthorized = [hostile for hostile in HOSTILE.values() if hostile.status == 401 and hostile.keys == "none"]
    assert len(unauthorized) > 25

    assert len({endpoint.send(hostile).body for hostile in unauthorized}) == 1


def test_all_callbacks_without_a_valid_signature_get_the_same_response(endpoint: Endpoint) -> None:
    unsigned = [
        hostile
        for hostile in HOSTILE.values()
        if hostile.status == 401 and hostile.keys == "one" and TOKEN in hostile.path
    ]
    assert len(unsigned) > 20

    assert len({endpoint.send(hostile).body for hostile in unsigned}) == 1


# ------------------------------------------------------------------------------------------------ invalid events


@pytest.mark.parametrize("token", [TOKEN, OTHER_TOKEN])
@pytest.mark.parametrize("body", ["$$$", "abc", "QQ", "QUJD\n$", "é" * 8, "\ud800", "QUJDRA==="])
def test_malformed_base64_is_rejected(endpoint: Endpoint, token: str, body: str) -> None:
    status, body_of_response = endpoint.handle(a_callback(body, token=token, isBase64Encoded=True))

    assert status in (400, 401)
    assert body_of_response.keys() == {"error", "message"}
    assert (endpoint.store.items(), endpoint.kept_count()) == ([], 0)


def test_the_size_limit_applies_to_the_decoded_body(endpoint: Endpoint) -> None:
    exact, longer = (base64.b64encode(SUCCESS.ljust(MAX_BODY_BYTES + n)).decode() for n in (0, 1))

    assert endpoint.handle(a_callback(exact, isBase64Encoded=True))[0] == 200
    assert endpoint.handle(a_callback(longer, isBase64Encoded=True))[0] == 413


@pytest.mark.parametrize("headers", [None, {}, {"content-type": ""}, {"X-WEBHOOK-SIGNATURE": ""}])
def test_headers_may_be_missing(endpoint: Endpoint, headers: dict[str, str] | None) -> None:
    assert endpoint.handle(a_callback(SUCCESS.decode(), headers=headers))[0] == 200
