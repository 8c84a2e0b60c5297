"""Sends 600 generated requests to the callback API, more than the test in tests/hostile."""

import requests

from tests.hostile import test_hostile_callbacks_openapi as callbacks

endpoint, session = callbacks.endpoint, callbacks.session


def test_callbacks_are_answered_as_documented(session: requests.Session) -> None:
    answered = callbacks.send_generated_callbacks(session, 600)

    assert answered.total() >= 500
    assert answered.keys() >= {200, 401, 422}
    assert answered[200] >= 30
