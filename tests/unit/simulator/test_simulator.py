"""The simulator behaves like the providers: submissions, callbacks, polls, images."""

import io
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from PIL import Image

from catchlight.errors import ProviderError
from catchlight.models import LastAnswer, TaskReport, TaskStatus
from catchlight.providers import PROVIDERS
from local.simulator import SCENARIOS, Simulator
from local.simulator.services import BASE_PATHS
from tests.unit.simulator.conftest import Receiver, client_of
from tests.waiting import eventually

NOW = datetime(2026, 1, 31, tzinfo=UTC)
SUBMISSIONS = {
    "flux-kontext": ("/kie/api/v1/flux/kontext/generate", "callBackUrl"),
    "apikley": ("/apikley/api/v1/flux/kontext/generate", "callBackUrl"),
    "nanobanana": ("/nanobanana/api/v1/nanobanana/generate", "callBackUrl"),
    "kie-market": ("/kie-market/api/v1/jobs/createTask", "callBackUrl"),
    "acedata": ("/acedata/flux/images", "callback_url"),
}
BEHAVIOURS = [(provider, scenario.name) for scenario in SCENARIOS.values() for provider in scenario.providers]


def poll(client: httpx.Client, provider: str, task_id: str) -> TaskReport:
    """Polls and parses the response as the poller does."""
    request = PROVIDERS[provider].poll_request([task_id])
    answer = client.request(
        request.method, BASE_PATHS[provider] + request.path, params=dict(request.params), json=request.json
    )
    return PROVIDERS[provider].parse_poll(request, answer.status_code, answer.json(), received_at=NOW)[0]


@pytest.mark.parametrize(("provider", "scenario"), BEHAVIOURS)
def test_callbacks_and_polls_of_every_scenario_are_read_by_the_real_providers(
    provider: str, scenario: str, simulator: Simulator, receiver: Receiver, client: httpx.Client
) -> None:
    rules = SCENARIOS[scenario]
    task = simulator.submit(
        provider, scenario=scenario, callback_url=receiver.url, params={"prompt": "a white siamese cat"}
    )
    for _ in range(rules.ends_when_polled):  # without polls, the task would take an hour
        poll(client, provider, task.task_id)
    eventually(lambda: simulator.outstanding_callbacks == 0 and time.time() > task.ends_at)

    expected = TaskStatus.SUCCEEDED if rules.outcome == "success" else TaskStatus.FAILED
    if scenario == "another-account":
        polled = poll(client, provider, task.task_id)
        assert (polled.status, polled.answer) == (TaskStatus.PENDING, LastAnswer.NOT_FOUND)
        assert len(receiver.bodies) == 1
        return
    if rules.poll_error:
        with pytest.raises(ProviderError, match=f"answered {rules.poll_error[0]}"):
            poll(client, provider, task.task_id)
        assert len(receiver.bodies) == 1
        return
    polled = poll(client, provider, task.task_id)
    if not rules.is_ever_recorded or rules.polls_before_result:
        assert polled.status is TaskStatus.PENDING
        assert len(receiver.bodies) == 1
        return
    if scenario == "unreadable-result":
        assert (polled.status, polled.unreadable is None) == (TaskStatus.FAILED, False)
        return
    assert polled.status is expected
    assert len(receiver.bodies) == sum(planned.copies for planned in rules.callbacks)
    if scenario == "failure-without-id":
        assert "task_id" not in receiver.bodies[0]
        return
    for body in receiver.bodies[:1]:
        report = PROVIDERS[provider].parse_callback(body, received_at=NOW)
        assert (report.task_id, report.status) == (task.task_id, expected)
        assert [image.url for image in report.images] == [image.url for image in task.images]
        assert [image.url for image in polled.images] == [image.url for image in report.images]
        assert polled.skipped == report.skipped
        assert [output.url for output in report.skipped] == [*task.videos]


@pytest.mark.parametrize("provider", SUBMISSIONS)
def test_a_slow_task_is_running_for_two_polls_and_then_calls_back(provider: str, receiver: Receiver) -> None:
    path, callback_key = SUBMISSIONS[provider]
    body = {"prompt": "a white cat", callback_key: receiver.url, "count": 1}
    if provider == "kie-market":
        body = {"model": "google/nano-banana", "input": {"prompt": "a white cat"}, callback_key: receiver.url}
    # In real time, so that only the polls end the task.
    with Simulator() as simulator, client_of(simulator) as client:
        answer = client.post(path, json=body, headers={"X-Simulate": "slow"}).json()
        task_id = answer["task_id"] if provider == "acedata" else answer["data"]["taskId"]

        statuses = [poll(client, provider, task_id).status for _ in range(2)]
        assert statuses == [TaskStatus.PENDING, TaskStatus.PENDING]
        eventually(lambda: simulator.outstanding_callbacks == 0)
        assert len(receiver.bodies) == 1
        assert poll(client, provider, task_id).status is TaskStatus.SUCCEEDED
        assert [polled.task_ids for polled in simulator.polls] == [(task_id,)] * 3


def test_a_slow_task_without_polls_ends_after_its_time(receiver: Receiver) -> None:
    with Simulator(time_scale=0.0001) as simulator:
        simulator.submit("acedata", scenario="slow", callback_url=receiver.url)
        eventually(lambda: len(receiver.bodies) == 1)


def test_poll_records_can_wait_for_the_callback(receiver: Receiver) -> None:
    receiver.answers = [500, 500, 500, 500]
    with (
        Simulator(time_scale=0.001, retry_delay_seconds=200, records_wait=True) as simulator,
        client_of(simulator) as client,
    ):
        report = simulator.submit("nanobanana", callback_url=receiver.url)
        silent = simulator.submit("nanobanana", scenario="silent", callback_url=receiver.url)
        eventually(lambda: len(receiver.bodies) == 1)
        assert poll(client, "nanobanana", report.task_id).status is TaskStatus.PENDING
        eventually(lambda: poll(client, "nanobanana", silent.task_id).status is TaskStatus.SUCCEEDED)
        # The simulator ends the deliveries after four tries. Then the record has the result.
        eventually(lambda: poll(client, "nanobanana", report.task_id).status is TaskStatus.SUCCEEDED)
    assert len(receiver.bodies) == 4


def test_a_result_can_be_html_or_in_a_private_network(simulator: Simulator, client: httpx.Client) -> None:
    page = simulator.submit("nanobanana", scenario="html-page").images[0]
    answer = client.get(page.url)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.text.startswith("<!doctype html>")

    origin, result = simulator.submit("flux-kontext", scenario="private-address").images
    assert origin.url.startswith(simulator.url)
    assert result.url.startswith("https://10.0.0.5/")


def test_a_result_can_be_a_file_that_browsers_do_not_show(simulator: Simulator, client: httpx.Client) -> None:
    result = simulator.submit("acedata", scenario="heic").images[0]
    assert client.get(result.url).content[4:12] == b"ftypheic"


def test_a_phone_photo_has_a_second_jpeg_behind_its_end(simulator: Simulator, client: httpx.Client) -> None:
    image = simulator.submit("nanobanana", scenario="phone-photo").images[0]
    content = client.get(image.url).content

    end = len(content) - image.picture.trailing_bytes
    assert content[:end].endswith(b"\xff\xd9")
    for jpeg, size in ((content[:end], 1), (content[end:], 4)):
        with Image.open(io.BytesIO(jpeg)) as decoded:
            decoded.load()
            assert decoded.width == image.picture.width // size


@pytest.mark.parametrize(("scenario", "statuses"), [("redirect", [302]), ("redirect-chain", [301, 307, 308])])
def test_a_result_can_be_behind_redirects(
    scenario: str, statuses: list[int], simulator: Simulator, client: httpx.Client
) -> None:
    origin, result = simulator.submit("flux-kontext", scenario=scenario).images
    assert client.get(origin.url).status_code == 200
    answer = client.get(result.url, follow_redirects=True)
    assert [hop.status_code for hop in answer.history] == statuses
    assert answer.content == result.content


def test_a_redirect_can_lead_to_itself_or_to_a_private_network(simulator: Simulator, client: httpx.Client) -> None:
    loop = simulator.submit("nanobanana", scenario="redirect-loop").images[0]
    assert client.get(loop.url).headers["location"] == loop.url
    inside = simulator.submit("nanobanana", scenario="redirect-inside").images[0]
    assert client.get(inside.url).headers["location"].startswith("https://10.0.0.5/")


def test_a_result_can_have_a_host_that_is_not_listed(simulator: Simulator, client: httpx.Client) -> None:
    image = simulator.submit("nanobanana", scenario="unlisted-host").images[0]
    host = simulator.image_hosts[1].removesuffix("=unlisted")
    assert image.url.startswith(f"http://{host}/images/")
    assert client.get(image.path).content == image.content


def test_a_prompt_can_name_the_scenario(client: httpx.Client, simulator: Simulator) -> None:
    client.post(SUBMISSIONS["flux-kontext"][0], json={"prompt": "a white cat simulate:silent-failure"})
    assert simulator.tasks[-1].scenario.name == "silent-failure"


def test_a_task_id_can_be_chosen_once(client: httpx.Client) -> None:
    def submit() -> Any:
        headers = {"X-Simulate-Task-Id": "task12345"}
        return client.post(SUBMISSIONS["flux-kontext"][0], json={"prompt": "a"}, headers=headers).json()

    assert submit()["data"] == {"taskId": "task12345"}
    assert submit()["code"] == 422


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        (SUBMISSIONS["flux-kontext"][0], {}, 200, "prompt is required"),
        (SUBMISSIONS["acedata"][0], {"prompt": "a"}, 400, "callback_url or async"),
        (SUBMISSIONS["acedata"][0], {"prompt": "a", "async": True, "count": 99}, 400, "count is 1 to 8"),
        (SUBMISSIONS["nanobanana"][0], {"prompt": "a simulate:several-images"}, 200, "no scenario"),
        ("/acedata/flux/tasks", {"action": "retrieve"}, 400, "missing or invalid"),
        ("/kie/nowhere", {}, 404, "no such endpoint"),
    ],
)
def test_invalid_requests_are_refused(path: str, body: Any, status: int, words: str, client: httpx.Client) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status
    assert words in answer.text


def test_scenarios_of_other_providers_are_refused(simulator: Simulator) -> None:
    with pytest.raises(ValueError, match="no scenario 'second-shape' for acedata"):
        simulator.submit("acedata", scenario="second-shape")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer"}, {"Authorization": "Basic a"}])
def test_a_missing_key_is_a_401_in_the_providers_format(headers: dict[str, str], simulator: Simulator) -> None:
    urls, polls_before = simulator.provider_urls, simulator.polls
    for url in (urls["flux-kontext"] + "/api/v1/flux/kontext/record-info?taskId=a", urls["acedata"] + "/flux/tasks"):
        method = "POST" if url.endswith("tasks") else "GET"
        answer = httpx.request(method, url, headers=headers, trust_env=False)
        assert answer.status_code == 401
        assert answer.json().get("code", answer.json().get("error", {}).get("code")) in (401, "invalid_token")
    assert simulator.polls == polls_before


def test_answers_about_unknown_tasks_have_each_services_format(client: httpx.Client) -> None:
    flux = client.get("/kie/api/v1/flux/kontext/record-info?taskId=unknown-task")
    assert (flux.status_code, flux.json()) == (200, {"code": 422, "msg": "Record does not exist", "data": None})
    nanobanana = client.get("/nanobanana/api/v1/nanobanana/record-info?taskId=unknown-task").json()
    assert nanobanana == {"code": 200, "msg": "success", "data": None}
    market = client.get("/kie-market/api/v1/jobs/recordInfo?taskId=unknown-task").json()
    assert market == {"code": 422, "msg": "recordInfo is null", "data": None}
    assert client.post("/acedata/flux/tasks", json={"id": "unknown-task", "action": "retrieve"}).json() == {}


def test_a_batch_leaves_out_unknown_tasks_and_keeps_to_the_limit(simulator: Simulator, client: httpx.Client) -> None:
    ids = [simulator.submit("acedata", scenario="silent").task_id for _ in range(15)]

    def retrieve(**query: Any) -> list[str]:
        answer = client.post("/acedata/flux/tasks", json={"action": "retrieve_batch", **query}).json()
        assert answer["count"] == len(answer["items"])
        return [item["id"] for item in answer["items"]]

    assert retrieve(ids=["unknown-task", *ids[:3]]) == ids[:3]
    assert retrieve(ids=ids) == ids[:12]
    assert retrieve(ids=ids, limit=50) == ids


def test_images_equal_their_pictures_and_some_have_a_wrong_content_type(
    simulator: Simulator, client: httpx.Client
) -> None:
    formats, wrong_types = set(), 0
    for number in range(8):
        task = simulator.submit("flux-kontext", task_id=f"task{number}", scenario="silent")
        assert [image.kind for image in task.images] == ["origin", "result"]
        for image in task.images:
            answer = client.get(image.url)
            assert answer.status_code == 200
            assert int(answer.headers["content-length"]) == len(answer.content)
            assert answer.content == image.content
            assert 20_000 < len(answer.content) < 600_000
            with Image.open(io.BytesIO(answer.content)) as decoded:
                decoded.load()
                assert decoded.format == image.format
                assert decoded.size == (image.picture.width, image.picture.height)
            formats.add(image.format)
            wrong_types += answer.headers["content-type"] != image.format.content_type
    assert len(formats) == 3
    assert wrong_types > 0


def test_an_original_expires_before_its_result(client: httpx.Client, simulator: Simulator) -> None:
    with Simulator() as in_real_time, client_of(in_real_time) as early:
        assert early.get(in_real_time.submit("flux-kontext", scenario="silent").images[0].url).status_code == 200
    task = simulator.submit("flux-kontext", scenario="silent")
    origin, result = task.images
    eventually(lambda: time.time() > origin.expires_at)  # 12 s until the task ends, then a lifetime of 600 s
    assert client.get(origin.url).status_code == 403
    assert client.get(result.url).status_code == 200
    assert client.get("/images/flux-kontext/unknown-task/result-0.png").status_code == 404


def test_clients_with_a_python_user_agent_get_no_image(simulator: Simulator) -> None:
    url = simulator.submit("nanobanana", scenario="silent").images[0].url
    refused = httpx.get(url, trust_env=False)  # its default user agent is python-httpx
    assert (refused.status_code, refused.text) == (403, "error code: 1010")
    seen = simulator.image_requests[-1]
    assert (seen.status, seen.user_agent[:12]) == (403, "python-httpx")


def test_the_overview_has_scenarios_and_tasks(simulator: Simulator, client: httpx.Client, receiver: Receiver) -> None:
    task = simulator.submit("acedata", scenario="duplicates", callback_url=receiver.url)
    eventually(lambda: simulator.outstanding_callbacks == 0)
    page = client.get("/").json()
    assert page["tasks"][0]["taskId"] == task.task_id
    assert [sent["status"] for sent in page["tasks"][0]["deliveries"]] == [200] * 4
    assert set(page["scenarios"]) == set(SCENARIOS)
    assert page["providers"] == simulator.provider_urls


def test_stopping_does_not_wait_for_callbacks_and_connections() -> None:
    simulator = Simulator()
    simulator.start()
    simulator.submit("flux-kontext", scenario="slow", callback_url="http://127.0.0.1:9/")
    with httpx.Client(trust_env=False) as idle:
        idle.get(simulator.url)
        simulator.stop()
        simulator.stop()
    # If `stop` had waited for the callback, there would be a delivery.
    assert simulator.deliveries == ()


def test_a_poll_record_signs_an_expired_original_again(client: httpx.Client, simulator: Simulator) -> None:
    task = simulator.submit("flux-kontext", scenario="origin-renewed")
    path = "/kie/api/v1/flux/kontext/record-info"

    def origin_url() -> str | None:
        response = client.get(path, params={"taskId": task.task_id}).json()["data"]["response"]
        return response and str(response["originImageUrl"])

    eventually(lambda: task.outcome_at(time.time()) is not None)
    first, second = origin_url(), origin_url()

    assert first is not None
    assert second is not None
    assert [client.get(url).status_code for url in (first, second)] == [403, 200]


@pytest.mark.parametrize("provider", ["flux-kontext", "kie-market"])
def test_a_download_url_is_given_for_results_only(client: httpx.Client, simulator: Simulator, provider: str) -> None:
    task = simulator.submit(provider)
    eventually(lambda: task.outcome_at(time.time()) is not None)
    result = next(image for image in task.images if image.kind == "result")

    def request_download_url(url: str) -> httpx.Response:
        request = PROVIDERS[provider].download_url_request(url)
        path = f"/{'kie' if provider == 'flux-kontext' else provider}{request.path}"
        return client.request(request.method, path, json=request.json)

    answer = request_download_url(result.url)
    fresh = PROVIDERS[provider].parse_download_url(answer.status_code, answer.json())
    assert fresh != result.url
    assert client.get(fresh).content == result.content
    assert request_download_url("https://elsewhere.example/x.png").json()["code"] == 422


def test_an_image_is_available_after_its_outage(client: httpx.Client, simulator: Simulator) -> None:
    task = simulator.submit("flux-kontext", scenario="image-outage")

    answers = [client.get(task.images[1].url).status_code for _ in range(6)]

    assert answers == [503] * 5 + [200]


@pytest.mark.parametrize("provider", SUBMISSIONS)
def test_credits_can_be_requested(provider: str, simulator: Simulator, client: httpx.Client) -> None:
    base = BASE_PATHS[provider]
    request = PROVIDERS[provider].credits_request()

    answer = client.request(request.method, base + request.path, json=request.json)

    assert PROVIDERS[provider].parse_credits(answer.status_code, answer.json()) == (
        None if provider == "acedata" else 1000
    )
