"""The tasks API on the local stack: signed requests over sockets, simulated providers, redirects, the example."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from catchlight.api import problems
from catchlight.providers import PROVIDERS
from local.artefact import Artefact
from local.simulator import Simulator
from local.stack import LocalStack
from tests.integration.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "tasks-api.md").read_text()


class Signature(httpx.Auth):
    """Signs requests as users of the local stack do."""

    requires_request_body = True

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
        signed = AWSRequest(request.method, str(request.url), data=request.content)
        SigV4Auth(Credentials("local", "local"), "execute-api", "us-east-1").add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        yield request


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(time_scale=0.02) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def stack(
    simulator: Simulator, tmp_path_factory: pytest.TempPathFactory, artefact: Artefact | None
) -> Iterator[LocalStack]:
    stack = LocalStack(
        state_dir=tmp_path_factory.mktemp("state"),
        time_scale=0.02,
        simulator=False,
        provider_urls=simulator.provider_urls,
        image_hosts=[simulator.image_host],
        artefact=artefact,
    )
    with stack:
        yield stack


@pytest.fixture
def api(stack: LocalStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.info["tasks_api_url"], auth=Signature(), trust_env=False, timeout=60) as client:
        yield client


def wait_until_done(api: httpx.Client, path: str) -> Any:
    for _ in range(10):
        task = api.get(path, params={"wait": 20}).json()
        if task["done"]:
            return task
    raise AssertionError(f"{path} is not done: {task}")


@pytest.mark.parametrize("provider_id", PROVIDERS)
def test_a_submitted_task_is_archived(api: httpx.Client, simulator: Simulator, provider_id: str) -> None:
    request: dict[str, Any] = {"prompt": f"a lighthouse for {provider_id}"}
    if provider_id == "kie-market":
        request = {"model": "google/nano-banana", "input": request}
    body = {"provider": provider_id, "request": request}
    before = len(simulator.tasks)

    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(lambda _: post(api, body, f"key-{provider_id}"), range(4)))
    again = post(api, body, f"key-{provider_id}")

    assert {response.status_code for response in responses} <= {201, 409}
    assert again.status_code == 201
    assert len(simulator.tasks) == before + 1
    task = wait_until_done(api, again.headers["location"])
    assert (task["status"], task["reportedBy"]) == ("ARCHIVED", "callback")
    assert task["request"]["prompt"] == f"a lighthouse for {provider_id}"
    for image in task["images"]:
        redirect = api.get(f"{again.headers['location']}/images/{image['kind']}-{image['index']}")
        assert redirect.status_code == 302
        stored = httpx.get(redirect.headers["location"], trust_env=False)
        assert (len(stored.content), stored.headers["content-type"]) == (image["bytes"], image["contentType"])
        assert httpx.get(image["link"], trust_env=False).content == stored.content
    assert api.get("/tasks", params={"limit": 1}).json()["tasks"][0]["task"] == task["task"]


def post(api: httpx.Client, body: dict[str, Any], key: str) -> httpx.Response:
    return api.post("/submissions", json=body, headers={"Idempotency-Key": key})


def test_a_request_that_the_provider_refuses_is_a_422_with_its_reply(api: httpx.Client) -> None:
    response = post(api, {"provider": "flux-kontext", "request": {"aspectRatio": "1:1"}}, "no-prompt")

    assert response.status_code == 422
    assert response.json()["type"].endswith(":request-refused")
    assert response.json()["providerReply"]["body"]["msg"] == "prompt is required"


def test_a_registered_task_is_polled_and_archived(api: httpx.Client, simulator: Simulator) -> None:
    task_id = simulator.submit("acedata", scenario="silent", params={"prompt": "a lighthouse"}).task_id

    response = api.post("/tasks", json={"provider": "acedata", "taskIds": [task_id]})

    assert response.json()["tasks"][0]["outcome"] == "registered"
    task = wait_until_done(api, f"/tasks/acedata/{task_id}")
    assert (task["status"], task["reportedBy"]) == ("ARCHIVED", "poll")


def test_unsigned_requests_are_rejected(stack: LocalStack) -> None:
    with httpx.Client(base_url=stack.info["tasks_api_url"], trust_env=False) as unsigned:
        for method, path in (
            ("GET", "/tasks"),
            ("POST", "/tasks"),
            ("POST", "/submissions"),
            ("GET", "/tasks/acedata/a"),
            ("GET", "/tasks/acedata/a/images/result-0"),
            ("DELETE", "/submissions/a"),
        ):
            response = unsigned.request(method, path)
            assert (response.status_code, response.json()) == (403, {"message": "Forbidden"})


# ------------------------------------------------------------------------------------------------ docs/tasks-api.md


def test_the_python_example_in_the_documentation_works(stack: LocalStack, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    environment = {
        "PATH": os.environ["PATH"],
        "TASKS_API_URL": stack.info["tasks_api_url"],
        "AWS_REGION": stack.info["region"],
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "NO_PROXY": "127.0.0.1",
    }

    completed = subprocess.run(
        [sys.executable, "-c", example], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )

    assert completed.returncode == 0, completed.stderr
    assert '"status": "ARCHIVED"' in completed.stdout
    assert re.search(r"^images/nanobanana/\S+/result-0\.\w+ \d+$", completed.stdout, re.MULTILINE)


def test_the_documentation_lists_every_problem_with_its_status() -> None:
    documented = {
        name: int(status)
        for names, status in re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \| (\d{3}) \|", PAGE, re.MULTILINE)
        for name in re.findall(r"`([a-z-]+)`", names)
    }

    problems_of_the_api = [each for each in vars(problems).values() if isinstance(each, problems.Problem)]
    assert documented == {problem.name: problem.status.value for problem in problems_of_the_api}


def test_the_iam_policy_in_the_documentation_is_valid_json() -> None:
    (policy,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)

    assert json.loads(policy)["Version"] == "2012-10-17"
