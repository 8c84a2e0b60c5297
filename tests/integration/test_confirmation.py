"""What came by callback is a claim: with an API key, the provider has the last word, in any order of events."""

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import httpx
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from functions.archive_images import app as archive_images
from functions.dispatch_changes.app import read_changes
from image_tasks.models import Failure, FailureReason, ImageKind, Reporter, TaskReport, TaskStatus
from image_tasks.provider_client import ProviderClient
from image_tasks.providers import PROVIDERS
from image_tasks.tasks_table import MAX_CONFLICTS
from local.event_filters import EventFilter
from local.template import Template
from tests.image_server import ImageServer, content, picture, serving, status
from tests.integration.archiver import HOST, TASK, Archiver, archiving
from tests.integration.conftest import TABLE_NAME, Store
from tests.integration.functions import PROVIDER_KEYS
from tests.integration.providers import (
    ACE_PATH,
    FLUX_PATH,
    Providers,
    failed,
    not_in_time,
    poll,
    polling,
    record,
    running,
    saying,
    unreachable,
)
from tests.planted_secrets import API_KEYS

PNG, FORGED = picture(size=(8, 6)), picture(size=(9, 9))
ACE = "acedata#a1"


class Stream:
    """The table's stream, as the dispatcher's function gets it."""

    def __init__(self, store: Store, template: Template) -> None:
        store.client.update_table(
            TableName=TABLE_NAME, StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
        )
        sources = [each["Properties"] for each in template.resources.values() if "EventSourceMapping" in each["Type"]]
        (filters,) = (source["FilterCriteria"]["Filters"] for source in sources if "FilterCriteria" in source)
        self._filter = EventFilter([found["Pattern"] for found in filters])
        self._client = boto3.client("dynamodbstreams")
        (stream,) = self._client.list_streams(TableName=TABLE_NAME)["Streams"]
        described = self._client.describe_stream(StreamArn=stream["StreamArn"])["StreamDescription"]
        self._iterator = self._client.get_shard_iterator(
            StreamArn=stream["StreamArn"],
            ShardId=described["Shards"][0]["ShardId"],
            ShardIteratorType="LATEST",
        )["ShardIterator"]

    def follows(self) -> list[tuple[str, TaskStatus]]:
        """What follows from the changes since the last look: SUCCEEDED is archived, anything else polled for."""
        answer = self._client.get_records(ShardIterator=self._iterator)
        self._iterator = answer["NextShardIterator"]
        records = json.loads(json.dumps(answer["Records"], default=str))  # times apart, as Lambda gets them
        let_through = [found for found in records if self._filter.matches(found)]
        return [(change.task, change.status) for change in read_changes(let_through)]


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with serving() as running_server:
        yield running_server


@pytest.fixture
def providers(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Providers]:
    """What archiver and poller ask alike."""
    with polling(monkeypatch) as providers:
        transport = httpx.MockTransport(providers)
        monkeypatch.setattr(
            archive_images,
            "ProviderClient",
            lambda base_urls, **how: ProviderClient(base_urls, transport=transport, **how),
        )
        yield providers


@pytest.fixture
def archiver(
    providers: Providers, store: Store, server: ImageServer, context: LambdaContext, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Archiver]:
    with archiving(store, server, context, monkeypatch, PROVIDER_KEYS) as made:
        yield made


@pytest.fixture
def stream(store: Store, template: Template) -> Stream:
    return Stream(store, template)


def has(result: str, origin: str | None = None) -> Callable[[httpx.Request], httpx.Response]:
    """The provider's record of a success with these URLs."""
    return lambda request: record(request, successFlag=1, response={"originImageUrl": origin, "resultImageUrl": result})


def ace_has(*urls: str) -> Callable[[httpx.Request], httpx.Response]:
    data = [{"image_url": url} for url in urls]
    return saying({"id": "a1", "response": {"success": True, "data": data}})


def claim_failure(store: Store, reason: FailureReason = FailureReason.INTERNAL, task: str = TASK) -> None:
    """A callback that says failed."""
    provider, _, task_id = task.partition("#")
    store.table.record(
        TaskReport(
            provider=provider,
            task_id=task_id,
            status=TaskStatus.FAILED,
            reported_by=Reporter.CALLBACK,
            reported_at=datetime.now(UTC),
            failure=Failure(reason=reason),
        )
    )


def refutations(capsys: pytest.CaptureFixture[str]) -> int:
    """How often the alarm's metric was counted since the last look."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    return int(sum(sum(line.get("CallbacksRefuted", [])) for line in lines))


def urls(item: dict[str, Any]) -> list[str]:
    return [image["url"] for image in item["images"]]


# ------------------------------------------------------------------------------------------------ confirmed


def test_what_the_provider_confirms_is_archived(
    archiver: Archiver, providers: Providers, capsys: pytest.CaptureFixture[str]
) -> None:
    claimed = archiver.serve("a", PNG)
    archiver.succeed(claimed)
    providers.answers[FLUX_PATH] = has(claimed)

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], item["reportedBy"], urls(item)) == ("ARCHIVED", "callback", [claimed])
    assert item["reportedAt"] <= item["confirmedAt"] <= item["archivedAt"]
    assert "conflicts" not in item
    assert list(archiver.objects().values()) == [PNG]
    assert refutations(capsys) == 0
    (asked,) = providers.requests
    assert (asked.url.params["taskId"], asked.headers["authorization"]) == (
        "task12345",
        f"Bearer {API_KEYS['flux-kontext']}",
    )


def test_a_confirmed_image_that_is_not_there_yet_is_tried_again(archiver: Archiver, providers: Providers) -> None:
    claimed = archiver.serve("a", status(503))
    archiver.succeed(claimed)
    providers.answers[FLUX_PATH] = has(claimed)

    assert archiver.run() == [TASK]
    archiver.serve("a", PNG)
    assert archiver.run(tries=2) == []

    assert archiver.item()["status"] == "ARCHIVED"


@pytest.mark.parametrize(
    "keys", [{}, {"flux-kontext": {}}, {"flux-kontext": {"apiKey": ""}}, {"acedata": {"apiKey": "x"}}]
)
def test_without_an_api_key_the_other_rules_stand_alone(
    archiver: Archiver, providers: Providers, keys: dict[str, Any]
) -> None:
    secret = archive_images.dependencies().settings.provider_keys_secret
    boto3.client("secretsmanager").put_secret_value(SecretId=secret, SecretString=json.dumps(keys))
    archiver.succeed(archiver.serve("a", PNG))

    assert archiver.run() == []

    item = archiver.item()
    assert item["status"] == "ARCHIVED"
    assert "confirmedAt" not in item
    assert providers.requests == []


def test_nobody_is_asked_again_about_what_a_poll_brought(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("a", PNG), reported_by=Reporter.POLL)

    assert archiver.run() == []

    assert archiver.item()["status"] == "ARCHIVED"
    assert providers.requests == []


def test_more_images_than_were_claimed_are_all_archived(archiver: Archiver, providers: Providers) -> None:
    first, second = (archiver.server.serve(name, PNG, "cdn.acedata.cloud") for name in "ab")
    archiver.succeed(second, task=ACE)
    providers.answers[ACE_PATH] = ace_has(first, second)

    assert archiver.run(ACE) == []

    item = archiver.item(ACE)
    assert (item["status"], urls(item), item["reportedBy"]) == ("ARCHIVED", [first, second], "poll")
    assert "conflicts" not in item


def test_an_origin_image_that_was_not_claimed_is_archived_too(archiver: Archiver, providers: Providers) -> None:
    origin, result = archiver.serve("o", PNG), archiver.serve("r", PNG)
    archiver.succeed(result)
    providers.answers[FLUX_PATH] = has(result, origin)

    assert archiver.run() == []

    assert [(image["kind"], image["state"]) for image in archiver.item()["images"]] == [
        ("origin", "ARCHIVED"),
        ("result", "ARCHIVED"),
    ]
    assert "conflicts" not in archiver.item()


def test_a_url_that_is_signed_anew_is_the_same_image(archiver: Archiver, providers: Providers) -> None:
    claimed, answered = (archiver.server.serve(f"a?signed={n}", PNG, HOST) for n in (1, 2))
    archiver.succeed(claimed)
    providers.answers[FLUX_PATH] = has(answered)

    assert archiver.run() == []

    assert (archiver.item()["status"], urls(archiver.item())) == ("ARCHIVED", [answered])
    assert "conflicts" not in archiver.item()
    assert archiver.server.requests == ["/a?signed=2"]


def test_the_providers_order_is_the_order(archiver: Archiver, providers: Providers) -> None:
    first, second = (archiver.server.serve(n, picture(size=(8, 7 + len(n))), "cdn.acedata.cloud") for n in ("a", "bb"))
    archiver.succeed(second, first, task=ACE)
    providers.answers[ACE_PATH] = ace_has(first, second)

    assert archiver.run(ACE) == []

    assert urls(archiver.item(ACE)) == [first, second]
    assert archiver.item(ACE)["images"][1]["height"] == 9


# ------------------------------------------------------------------------------------------------ refuted


@pytest.mark.parametrize("tries", [1, archive_images.MAX_TRIES])
def test_other_urls_than_the_providers_are_never_fetched(
    archiver: Archiver, providers: Providers, capsys: pytest.CaptureFixture[str], tries: int
) -> None:
    claimed, answered = archiver.serve("forged", FORGED), archiver.serve("real", PNG)
    archiver.succeed(claimed)
    providers.answers[FLUX_PATH] = has(answered)

    assert archiver.run(tries=tries) == []

    item = archiver.item()
    assert (item["status"], item["reportedBy"], urls(item)) == ("ARCHIVED", "poll", [answered])
    (evidence,) = item["conflicts"]
    assert (evidence["status"], evidence["reportedBy"], evidence["urls"]) == ("SUCCEEDED", "callback", [claimed])
    assert archiver.server.requests == ["/real"]
    assert list(archiver.objects().values()) == [PNG]
    assert refutations(capsys) == 1


def test_one_forged_image_among_real_ones_is_enough(archiver: Archiver, providers: Providers) -> None:
    real, forged = (archiver.server.serve(name, PNG, "cdn.acedata.cloud") for name in ("real", "forged"))
    archiver.succeed(real, forged, task=ACE)
    providers.answers[ACE_PATH] = ace_has(real)

    assert archiver.run(ACE) == []

    assert (urls(archiver.item(ACE)), len(archiver.item(ACE)["conflicts"])) == ([real], 1)
    assert archiver.server.requests == ["/real"]


def test_a_result_as_another_kind_of_image_is_another_result(archiver: Archiver, providers: Providers) -> None:
    url = archiver.serve("a", PNG)
    archiver.succeed((ImageKind.ORIGIN, url, 10))
    providers.answers[FLUX_PATH] = has(url)

    assert archiver.run() == []

    assert [image["kind"] for image in archiver.item()["images"]] == ["result"]
    assert len(archiver.item()["conflicts"]) == 1


def test_a_success_that_the_provider_calls_failed_is_failed(
    archiver: Archiver, providers: Providers, capsys: pytest.CaptureFixture[str]
) -> None:
    claimed = archiver.serve("forged", FORGED)
    archiver.succeed(claimed)
    providers.answers[FLUX_PATH] = failed

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], item["rank"], item["reportedBy"]) == ("FAILED", 20, "poll")
    assert (item["failure"]["reason"], item["failure"]["message"]) == ("CONTENT_POLICY", "policy")
    assert "images" not in item
    assert [evidence["urls"] for evidence in item["conflicts"]] == [[claimed]]
    assert (archiver.server.requests, archiver.objects()) == ([], {})
    assert refutations(capsys) == 1


@pytest.mark.parametrize(
    "answer",
    [running, saying({"code": 422, "msg": "Record does not exist", "data": None}), saying({"code": 404}, 404)],
    ids=["running", "unknown", "404"],
)
def test_a_success_that_the_provider_does_not_know_of_is_polled_for_in_the_end(
    archiver: Archiver,
    providers: Providers,
    stream: Stream,
    capsys: pytest.CaptureFixture[str],
    answer: Callable[[httpx.Request], httpx.Response],
) -> None:
    claimed = archiver.serve("forged", FORGED)
    archiver.succeed(claimed)
    assert stream.follows() == [(TASK, "SUCCEEDED")]
    before = archiver.item()
    providers.answers[FLUX_PATH] = answer

    # A record may lag behind its callback.
    for tries in range(1, archive_images.MAX_TRIES):
        assert archiver.run(tries=tries) == [TASK]
        assert archiver.item() == before
    assert refutations(capsys) == 0
    assert archiver.run(tries=archive_images.MAX_TRIES) == []

    item = archiver.item()
    assert (item["status"], item["rank"]) == ("PENDING", 0)
    assert not item.keys() & {"images", "failure", "reportedBy", "reportedAt"}
    assert [evidence["urls"] for evidence in item["conflicts"]] == [[claimed]]
    assert refutations(capsys) == 1
    assert stream.follows() == [(TASK, "PENDING")]
    # The message's sixth life, if there were one, would find nothing to do.
    assert archiver.run() == []

    answered = archiver.serve("real", PNG)
    providers.answers[FLUX_PATH] = has(answered)
    assert poll(TASK)["tasks"] == []
    assert stream.follows() == [(TASK, "SUCCEEDED")]
    assert archiver.run() == []
    assert (archiver.item()["status"], urls(archiver.item())) == ("ARCHIVED", [answered])
    assert archiver.server.requests == ["/real"]


def test_a_correction_counts_even_if_there_is_no_room_for_more_evidence(
    archiver: Archiver, providers: Providers
) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))
    for number in range(MAX_CONFLICTS + 2):
        archiver.succeed(f"https://{HOST}/{number}.png")
    answered = archiver.serve("real", PNG)
    providers.answers[FLUX_PATH] = has(answered)

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], urls(item), len(item["conflicts"])) == ("ARCHIVED", [answered], MAX_CONFLICTS)


def test_a_success_after_a_confirmed_failure_is_a_claim_again(archiver: Archiver, providers: Providers) -> None:
    claim_failure(archiver.store, FailureReason.CONTENT_POLICY)
    providers.answers[FLUX_PATH] = failed
    poll(TASK)
    assert "confirmedAt" in archiver.item()
    archiver.succeed(archiver.serve("forged", FORGED))
    assert "confirmedAt" not in archiver.item()

    assert archiver.run() == []

    assert archiver.item()["status"] == "FAILED"
    assert archiver.server.requests == []


# ------------------------------------------------------------------------------------------------ nobody to ask

NO_ANSWERS = {
    "500": saying({"code": 500, "msg": "error"}),
    "HTTP 500": saying({}, 500),
    "unreachable": unreachable,
    "too slow": not_in_time,
    "429": saying({"code": 429}),
    "455": saying({"code": 455}),
    "401": saying({"code": 401}),
    "HTTP 401": saying({}, 401),
    "402": saying({"code": 402}),
    "redirect": lambda _: httpx.Response(302, headers={"Location": "https://api.kie.ai/elsewhere"}),
    "HTML": lambda _: httpx.Response(200, text="<html>"),
    "another task": saying({"code": 200, "data": {"taskId": "other", "successFlag": 3}}),
    "success without a URL": saying({"code": 200, "data": {"taskId": "task12345", "successFlag": 1, "response": {}}}),
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_without_an_answer_nothing_is_fetched_and_nothing_changes(
    archiver: Archiver,
    providers: Providers,
    capsys: pytest.CaptureFixture[str],
    answer: Callable[[httpx.Request], httpx.Response],
) -> None:
    claimed = archiver.serve("a", PNG)
    archiver.succeed(claimed)
    before = archiver.item()
    providers.answers[FLUX_PATH] = answer

    for tries in (1, archive_images.MAX_TRIES):
        assert archiver.run(tries=tries) == [TASK]

    assert archiver.item() == before
    assert len(providers.requests) == 2
    assert (archiver.server.requests, archiver.objects(), refutations(capsys)) == ([], {}, 0)

    # From the dead letters, for instance.
    providers.answers[FLUX_PATH] = has(claimed)
    assert archiver.run() == []
    assert archiver.item()["status"] == "ARCHIVED"


def test_a_provider_that_is_down_holds_up_no_other(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    url = archiver.server.serve("b", PNG, "cdn.acedata.cloud")
    archiver.succeed(url, task=ACE)
    providers.answers = {FLUX_PATH: unreachable, ACE_PATH: ace_has(url)}

    assert archiver.run(TASK, ACE) == [TASK]

    assert (archiver.item()["status"], archiver.item(ACE)["status"]) == ("SUCCEEDED", "ARCHIVED")


def test_a_provider_that_does_not_answer_costs_the_message_little_time(
    archiver: Archiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a real connection, at an address that a setting names."""
    clients: list[ProviderClient] = []

    def a_client(base_urls: dict[str, str], **how: float) -> ProviderClient:
        clients.append(ProviderClient(base_urls, **how))  # type: ignore[arg-type] # the time-out alone
        return clients[-1]

    monkeypatch.setattr(archive_images, "ProviderClient", a_client)
    monkeypatch.setattr(archive_images, "CONFIRMATION_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setenv("PROVIDER_BASE_URLS", f"flux-kontext=http://127.0.0.1:{archiver.server.port}")
    claimed = archiver.serve("a", PNG)
    said = {"taskId": "task12345", "successFlag": 1, "response": {"resultImageUrl": claimed}}
    path = f"{FLUX_PATH.removeprefix('/')}?taskId=task12345"
    archiver.succeed(claimed)

    def silent(request: Any) -> None:
        request.close_connection = True
        request.connection.settimeout(5)
        request.connection.recv(1)  # until the client hangs up

    archiver.server.serve(path, silent)
    started_at = datetime.now(UTC)
    assert archiver.run() == [TASK]
    assert datetime.now(UTC) - started_at < timedelta(seconds=3)

    archiver.server.serve(path, content(json.dumps({"code": 200, "data": said}).encode(), "application/json"))
    assert archiver.run(tries=2) == []
    assert archiver.item()["status"] == "ARCHIVED"
    assert archiver.server.headers[0]["authorization"] == f"Bearer {API_KEYS['flux-kontext']}"
    assert "authorization" not in archiver.server.headers[-1]  # the image's host has no business with it
    clients[0]._http.close()


def test_a_malformed_secret_lets_nothing_through(archiver: Archiver, providers: Providers) -> None:
    secret = archive_images.dependencies().settings.provider_keys_secret
    boto3.client("secretsmanager").put_secret_value(SecretId=secret, SecretString='{"flux-kontext": "the key"}')
    archiver.succeed(archiver.serve("a", PNG))

    assert archiver.run(tries=archive_images.MAX_TRIES) == [TASK]

    assert (archiver.server.requests, providers.requests) == ([], [])


# ------------------------------------------------------------------------------------------------ races


def test_what_another_run_has_corrected_meanwhile_is_not_corrected_again(
    archiver: Archiver, providers: Providers
) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))
    answered = archiver.serve("real", PNG)

    def overtaken(request: httpx.Request) -> httpx.Response:
        providers.answers[FLUX_PATH] = has(answered)
        assert archiver.run() == []  # the same message once more
        return failed(request)

    providers.answers[FLUX_PATH] = overtaken

    assert archiver.run() == [TASK]
    assert (archiver.item()["status"], urls(archiver.item())) == ("ARCHIVED", [answered])
    assert archiver.run(tries=2) == []


def test_a_task_that_is_deleted_meanwhile_stays_deleted(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))

    def deleted(request: httpx.Request) -> httpx.Response:
        archiver.store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": TASK}})
        return failed(request)

    providers.answers[FLUX_PATH] = deleted

    assert archiver.run() == [TASK]
    assert archiver.run(tries=2) == []
    assert archiver.store.items() == []


def test_a_new_claim_instead_of_a_refuted_one_is_not_taken_for_it(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))

    def claimed_anew(request: httpx.Request) -> httpx.Response:
        archiver.store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": TASK}})
        archiver.succeed(archiver.serve("again", FORGED))
        providers.answers[FLUX_PATH] = failed
        return failed(request)

    providers.answers[FLUX_PATH] = claimed_anew

    assert archiver.run() == [TASK]
    assert archiver.item()["status"] == "SUCCEEDED"
    assert archiver.run(tries=2) == []
    assert archiver.item()["status"] == "FAILED"
    assert archiver.server.requests == []


def test_the_same_message_many_times_at_once_ends_well(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))
    answered = archiver.serve("real", PNG)
    providers.answers[FLUX_PATH] = has(answered)

    if archiver.run(*[TASK] * archive_images.MAX_MESSAGES):
        assert archiver.run(tries=2) == []

    item = archiver.item()
    assert (item["status"], urls(item), len(item["conflicts"])) == ("ARCHIVED", [answered], 1)
    assert "/forged" not in archiver.server.requests


def test_a_correction_that_is_not_written_is_made_by_the_next_message(
    archiver: Archiver, providers: Providers, capsys: pytest.CaptureFixture[str]
) -> None:
    archiver.succeed(archiver.serve("forged", FORGED))
    providers.answers[FLUX_PATH] = failed
    events = archive_images.dependencies().archive._table._client.meta.events

    def fail(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "InternalServerError"}}, "UpdateItem")

    events.register("before-call.dynamodb.UpdateItem", fail)
    assert archiver.run() == [TASK]
    assert (archiver.item()["status"], archiver.server.requests, refutations(capsys)) == ("SUCCEEDED", [], 0)

    events.unregister("before-call.dynamodb.UpdateItem", fail)
    assert archiver.run(tries=2) == []
    assert (archiver.item()["status"], refutations(capsys)) == ("FAILED", 1)


# ------------------------------------------------------------------------------------------------ failures


def test_a_failure_is_confirmed_by_the_next_poll(
    store: Store, providers: Providers, capsys: pytest.CaptureFixture[str]
) -> None:
    store.register(TASK)
    claim_failure(store, FailureReason.CONTENT_POLICY)
    providers.answers[FLUX_PATH] = failed

    assert poll(TASK)["tasks"] == []

    (item,) = store.items()
    assert (item["status"], item["reportedBy"]) == ("FAILED", "callback")
    assert item["confirmedAt"] == item["updatedAt"] >= item["reportedAt"]
    assert "conflicts" not in item
    assert refutations(capsys) == 0
    assert poll(TASK)["tasks"] == []
    assert len(providers.requests) == 1  # nobody is asked twice


def test_a_failure_that_was_none_becomes_the_success_it_was(
    archiver: Archiver, providers: Providers, stream: Stream, capsys: pytest.CaptureFixture[str]
) -> None:
    archiver.store.register(TASK)
    claim_failure(archiver.store)
    assert stream.follows() == [(TASK, "PENDING")]
    answered = archiver.serve("real", PNG)
    providers.answers[FLUX_PATH] = has(answered)

    assert poll(TASK)["tasks"] == []

    item = archiver.item()
    assert (item["status"], item["reportedBy"], urls(item)) == ("SUCCEEDED", "poll", [answered])
    assert "failure" not in item
    (evidence,) = item["conflicts"]
    assert (evidence["status"], evidence["reportedBy"], evidence["failure"]["reason"]) == (
        "FAILED",
        "callback",
        "INTERNAL",
    )
    assert refutations(capsys) == 1
    assert stream.follows() == [(TASK, "SUCCEEDED")]
    assert archiver.run() == []
    assert archiver.item()["status"] == "ARCHIVED"


def test_a_failure_for_another_reason_is_corrected(
    store: Store, providers: Providers, capsys: pytest.CaptureFixture[str]
) -> None:
    claim_failure(store, FailureReason.INTERNAL)
    providers.answers[FLUX_PATH] = failed

    assert poll(TASK)["tasks"] == []

    (item,) = store.items()
    assert (item["status"], item["failure"]["reason"], item["reportedBy"]) == ("FAILED", "CONTENT_POLICY", "poll")
    # Callback and record of the same failure may name it differently: nobody lied.
    assert "conflicts" not in item
    assert refutations(capsys) == 0


@pytest.mark.parametrize("answer", [running, *NO_ANSWERS.values()], ids=["running", *NO_ANSWERS])
def test_a_failure_is_polled_for_until_the_provider_answers(
    store: Store, providers: Providers, answer: Callable[[httpx.Request], httpx.Response]
) -> None:
    claim_failure(store)
    before = store.items()
    providers.answers[FLUX_PATH] = answer

    assert poll(TASK)["tasks"] == [TASK]
    assert poll(TASK, wait_seconds=120, waited_seconds=21_400)["tasks"] == [TASK]
    # The time is over: it stays what it was, a claim.
    assert poll(TASK, wait_seconds=120, waited_seconds=21_480)["tasks"] == []

    assert store.items() == before


def test_the_last_poll_of_all_can_refute_a_failure(archiver: Archiver, providers: Providers) -> None:
    claim_failure(archiver.store)
    providers.answers[FLUX_PATH] = has(archiver.serve("real", PNG))

    assert poll(TASK, wait_seconds=120, waited_seconds=21_480)["tasks"] == []

    assert archiver.item()["status"] == "SUCCEEDED"


@pytest.mark.parametrize("keys", [{}, {"flux-kontext": {"apiKey": ""}}])
def test_without_an_api_key_a_failure_is_left_alone(store: Store, providers: Providers, keys: dict[str, Any]) -> None:
    (secret,) = boto3.client("secretsmanager").list_secrets()["SecretList"]
    boto3.client("secretsmanager").put_secret_value(SecretId=secret["ARN"], SecretString=json.dumps(keys))
    claim_failure(store)

    assert poll(TASK)["tasks"] == []

    assert [item["status"] for item in store.items()] == ["FAILED"]
    assert providers.requests == []


def test_better_news_that_comes_while_the_provider_is_asked_stays(archiver: Archiver, providers: Providers) -> None:
    claim_failure(archiver.store, FailureReason.CONTENT_POLICY)
    claimed = archiver.serve("real", PNG)

    def overtaken(request: httpx.Request) -> httpx.Response:
        archiver.succeed(claimed)
        return failed(request)

    providers.answers[FLUX_PATH] = overtaken

    assert poll(TASK)["tasks"] == []

    assert archiver.item()["status"] == "SUCCEEDED"
    assert "confirmedAt" not in archiver.item()


@pytest.mark.parametrize("before", [None, "TIMED_OUT", "PENDING"])
def test_a_claimed_failure_that_nobody_polls_for_is_polled_for(
    store: Store, stream: Stream, before: str | None
) -> None:
    if before:
        store.put(TASK, status=before, rank=TaskStatus(before).rank)
        stream.follows()

    claim_failure(store)

    # Of one that was pending, the execution that polls for it hears by itself.
    assert stream.follows() == ([] if before == "PENDING" else [(TASK, "FAILED")])


def test_a_success_that_heals_a_polled_failure_is_told_from_a_claim(archiver: Archiver, providers: Providers) -> None:
    archiver.store.register(TASK)
    providers.answers[FLUX_PATH] = failed
    poll(TASK)

    archiver.succeed(archiver.serve("a", PNG))

    assert [evidence["reportedBy"] for evidence in archiver.item()["conflicts"]] == ["poll"]


# ------------------------------------------------------------------------------------------------ whatever the order

task_numbers = itertools.count()


class World:
    """One task: its provider, a forger who knows the token, and the parts of Catchlight, each to be run at any time."""

    def __init__(self, archiver: Archiver, providers: Providers, stream: Stream, truth: str) -> None:
        self.archiver, self.providers, self.stream = archiver, providers, stream
        self.truth = truth
        self.task_id = f"world{next(task_numbers)}"
        self.task = f"flux-kontext#{self.task_id}"
        self.real = archiver.serve(f"real-{self.task_id}", PNG)
        self.is_finished = False
        self.messages: list[int] = []  # tries of each
        self.executions: list[dict[str, Any]] = []
        stream.follows()
        providers.answers[FLUX_PATH] = self.answer

    def answer(self, request: httpx.Request) -> httpx.Response:
        if not self.is_finished:
            return running(request)
        return has(self.real)(request) if self.truth == "success" else failed(request)

    def callback(self, **body: Any) -> None:
        report = PROVIDERS["flux-kontext"].parse_callback(
            body | {"taskId": self.task_id}, received_at=datetime.now(UTC)
        )
        self.archiver.store.table.record(report)

    def step(self, name: str) -> None:
        match name:
            case "register":
                if self.archiver.store.item(self.task) is None:
                    self.archiver.store.register(self.task)
            case "finish":
                self.is_finished = True
            case "real callback":
                if self.is_finished and self.truth == "success":
                    self.callback(code=200, data={"info": {"resultImageUrl": self.real}})
                elif self.is_finished:
                    self.callback(code=400, msg="policy")
            case "forged success" | "another forged success":
                url = self.archiver.serve(f"forged-{name.count(' ')}-{self.task_id}", FORGED)
                self.callback(code=200, data={"info": {"resultImageUrl": url}})
            case "forged failure":
                self.callback(code=500, msg="forged")
            case "archive":
                self.messages = [
                    tries + 1 for tries in self.messages if self.archiver.run(self.task, tries=tries) == [self.task]
                ]
                assert all(tries <= archive_images.MAX_TRIES for tries in self.messages)  # no dead letter
            case "poll":
                self.executions = [state for state in map(self._poll, self.executions) if state["tasks"]]
        for _, what in self.stream.follows():
            if what is TaskStatus.SUCCEEDED:
                self.messages.append(1)
            else:
                self.executions.append({"waitSeconds": 60, "waitedSeconds": 0, "tasks": [self.task]})

    @staticmethod
    def _poll(state: dict[str, Any]) -> dict[str, Any]:
        return poll(*state["tasks"], wait_seconds=state["waitSeconds"], waited_seconds=state["waitedSeconds"])

    def settle(self) -> None:
        """What happens if nobody interferes any more."""
        self.step("finish")
        for _ in range(20):
            if not (self.messages or self.executions):
                return
            self.step("archive")
            self.step("poll")
        pytest.fail("it does not come to an end")


STEPS = [
    *("register", "finish", "real callback", "archive", "poll"),
    *("forged success", "another forged success", "forged failure"),
]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(truth=st.sampled_from(["success", "failure"]), steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=12))
@example(truth="success", steps=["forged failure", "poll", "forged success", *["archive"] * 5, "forged failure"])
@example(truth="failure", steps=["finish", "forged failure", "poll", "forged success", "archive", "forged success"])
@example(truth="failure", steps=["finish", "real callback", "poll", "forged success"])
@example(truth="success", steps=["forged success", *["archive"] * 5, "forged failure", "finish", "poll"])
def test_a_forger_with_the_token_changes_nothing_in_the_end(
    archiver: Archiver, providers: Providers, stream: Stream, truth: str, steps: list[str]
) -> None:
    world = World(archiver, providers, stream, truth)
    for step in steps:
        world.step(step)
    world.settle()

    item = archiver.store.item(world.task)
    if item is None:  # nothing was ever said of it
        assert not {"register", "forged success", "another forged success", "forged failure"} & set(steps)
        return
    if truth == "success":
        assert (item["status"], urls(item)) == ("ARCHIVED", [world.real])
    else:
        assert (item["status"], item["failure"]["reason"]) == ("FAILED", "CONTENT_POLICY")
        assert "images" not in item
    assert not [path for path in archiver.server.requests if path.startswith("/forged")]
    stored = {key: data for key, data in archiver.objects().items() if world.task_id in key}
    assert list(stored.values()) == ([PNG] if truth == "success" else [])
