"""Sends hundreds of generated requests to both APIs. The tests in tests/hostile do so with fewer."""

import requests

from tests.hostile import test_hostile_callbacks_openapi as callbacks
from tests.hostile import test_tasks_api_openapi as tasks
from tests.integration.tasks_api.api_harness import TasksApiHarness

api, endpoint = tasks.api, callbacks.endpoint
tasks_session, callbacks_session = tasks.session, callbacks.session


def test_the_tasks_api_answers_as_documented(api: TasksApiHarness, tasks_session: requests.Session) -> None:
    answered = tasks.send_generated_requests(api, tasks_session, 900)

    assert answered.total() >= 500
    statuses = {status for _, status in answered}
    assert statuses >= {200, 201, 204, 302, 400, 404, 409, 422, 424, 429}
    for operation in tasks.OPERATIONS:
        assert sum(answered[key] for key in answered if key[0] == operation.label) >= 50, answered
    for label in ("GET /tasks", "POST /tasks", "GET /tasks/{provider}/{taskId}"):
        assert answered[label, 200] >= 5, answered


def test_callbacks_are_answered_as_documented(callbacks_session: requests.Session) -> None:
    answered = callbacks.send_generated_callbacks(callbacks_session, 600)

    assert answered.total() >= 500
    assert answered.keys() >= {200, 401, 422}
    assert answered[200] >= 30
