"""Sends 900 generated requests to the tasks API, more than the test in tests/hostile."""

import requests

from tests.hostile import test_tasks_api_openapi as tasks
from tests.integration.tasks_api.api_harness import TasksApiHarness

api, session = tasks.api, tasks.session


def test_the_tasks_api_answers_as_documented(api: TasksApiHarness, session: requests.Session) -> None:
    answered = tasks.send_generated_requests(api, session, 900)

    assert answered.total() >= 500
    statuses = {status for _, status in answered}
    assert statuses >= {200, 201, 204, 302, 400, 404, 409, 422, 424, 429}
    for operation in tasks.OPERATIONS:
        assert sum(answered[key] for key in answered if key[0] == operation.label) >= 50, answered
    for label in ("GET /tasks", "POST /tasks", "GET /tasks/{provider}/{taskId}"):
        assert answered[label, 200] >= 5, answered
