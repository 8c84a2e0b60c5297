"""The generation request is stored in the item and in the images' metadata, or as request.json if it is too long."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from catchlight.models import FailureReason
from catchlight.polling.intervals import MAX_ARCHIVE_TRIES
from functions.archive_images import app as archive_images
from tests.image_server import status
from tests.integration.archiver import BUCKET, TASK, Archiver
from tests.integration.confirmation.reports import PNG, report_failure
from tests.integration.conftest import Store
from tests.integration.providers import FLUX_PATH, Providers, poll, record

REQUEST = {"prompt": "A serene mountain landscape", "size": "16:9"}
REQUEST_KEY = "images/flux-kontext/task12345/request.json"
IMAGE_KEY = "images/flux-kontext/task12345/result-0.png"


def record_with_request(result: str, prompt: str = REQUEST["prompt"]) -> Any:
    """Returns a handler that responds with a record that has the request, in the provider's format."""
    parameters = json.dumps({"prompt": prompt, "aspectRatio": REQUEST["size"]})
    return lambda request: record(
        request, successFlag=1, paramJson=parameters, response={"originImageUrl": None, "resultImageUrl": result}
    )


def request_in_metadata(archiver: Archiver, key: str = IMAGE_KEY) -> Any:
    """Returns the generation request in the metadata of an image's object."""
    metadata = archiver.s3.head_object(Bucket=BUCKET, Key=key)["Metadata"]
    return json.loads(metadata["request"]) if "request" in metadata else None


def test_a_confirmation_stores_the_generation_request(archiver: Archiver, providers: Providers) -> None:
    url = archiver.serve("a", PNG)
    providers.answers = {FLUX_PATH: record_with_request(url)}
    archiver.succeed(url)

    assert archiver.run() == []

    assert archiver.item()["request"] == REQUEST
    assert request_in_metadata(archiver) == REQUEST
    assert list(archiver.objects()) == [IMAGE_KEY]


def test_a_request_too_long_for_metadata_is_written_as_request_json(archiver: Archiver, providers: Providers) -> None:
    long = {"prompt": "A serene mountain landscape, mist, " * 60 + "a boat", "size": "16:9"}
    url = archiver.serve("a", PNG)
    providers.answers = {FLUX_PATH: record_with_request(url, prompt=long["prompt"])}
    archiver.succeed(url)

    assert archiver.run() == []

    assert request_in_metadata(archiver) is None
    sidecar = archiver.s3.get_object(Bucket=BUCKET, Key=REQUEST_KEY)
    assert sidecar["ContentType"] == "application/json"
    assert json.load(sidecar["Body"]) == {
        "provider": "flux-kontext",
        "taskId": "task12345",
        "request": long,
    }


def test_a_poll_stores_the_generation_request(archiver: Archiver, providers: Providers) -> None:
    archiver.store.register(TASK)
    providers.answers = {FLUX_PATH: record_with_request(archiver.serve("a", PNG))}

    poll(TASK)
    assert archiver.item()["request"]["prompt"] == REQUEST["prompt"]
    assert archiver.run() == []

    assert request_in_metadata(archiver) == REQUEST


def test_the_request_of_the_registration_takes_precedence(archiver: Archiver, providers: Providers) -> None:
    provider, _, task_id = TASK.partition("#")
    own = {"prompt": "the user's own words", "model": "flux-kontext-max"}
    archiver.store.put(TASK, provider=provider, taskId=task_id, status="PENDING", rank=0, request=own)
    providers.answers = {FLUX_PATH: record_with_request(archiver.serve("a", PNG))}

    poll(TASK)
    archiver.run()

    # Fields that the registration left out are added from the provider's record.
    assert archiver.item()["request"] == {**own, "size": REQUEST["size"]}
    assert request_in_metadata(archiver) == {**own, "size": REQUEST["size"]}


def test_an_empty_request_is_replaced_by_the_providers(archiver: Archiver, providers: Providers) -> None:
    provider, _, task_id = TASK.partition("#")
    archiver.store.put(TASK, provider=provider, taskId=task_id, status="PENDING", rank=0, request={})
    providers.answers = {FLUX_PATH: record_with_request(archiver.serve("a", PNG))}

    poll(TASK)

    assert archiver.item()["request"] == REQUEST


def test_a_confirmation_adds_missing_fields_of_the_request(archiver: Archiver, providers: Providers) -> None:
    provider, _, task_id = TASK.partition("#")
    own = {"prompt": "the user's own words", "model": "flux-kontext-max", "customer": 17}
    archiver.store.put(TASK, provider=provider, taskId=task_id, status="PENDING", rank=0, request=own)
    url = archiver.serve("a", PNG)
    providers.answers = {FLUX_PATH: record_with_request(url)}
    archiver.succeed(url)

    assert archiver.run() == []

    assert archiver.item()["request"] == {**own, "size": REQUEST["size"]}
    del own["customer"]
    assert request_in_metadata(archiver) == {**own, "size": REQUEST["size"]}


def test_a_confirmed_failure_has_the_generation_request(store: Store, providers: Providers) -> None:
    report_failure(store, FailureReason.CONTENT_POLICY)
    parameters = json.dumps({"prompt": REQUEST["prompt"], "aspectRatio": REQUEST["size"]})
    providers.answers = {
        FLUX_PATH: lambda request: record(
            request, successFlag=3, errorCode=400, errorMessage="no", paramJson=parameters
        )
    }

    poll(TASK)

    (item,) = store.items()
    assert "confirmedAt" in item
    assert item["request"] == REQUEST


def test_without_a_request_neither_metadata_nor_request_json_is_written(
    archiver: Archiver, providers: Providers
) -> None:
    url = archiver.serve("a", PNG)
    providers.answers = {FLUX_PATH: lambda request: record(request, successFlag=1, response={"resultImageUrl": url})}
    archiver.succeed(url)

    assert archiver.run() == []

    assert list(archiver.objects()) == [IMAGE_KEY]
    assert request_in_metadata(archiver) is None


def test_an_incomplete_task_has_a_request_json(archiver: Archiver, providers: Providers) -> None:
    archiver.store.register(TASK)
    providers.answers = {FLUX_PATH: record_with_request(archiver.serve("a", status(404)))}

    poll(TASK)
    archiver.run(tries=MAX_ARCHIVE_TRIES)

    assert archiver.item()["status"] == "INCOMPLETE"
    assert list(archiver.objects()) == [REQUEST_KEY]


@pytest.mark.parametrize("code", ["SlowDown", "ConditionalRequestConflict"])
def test_a_task_is_archived_only_after_its_request_is_stored(
    archiver: Archiver, providers: Providers, code: str
) -> None:
    url = archiver.serve("a", PNG)
    providers.answers = {FLUX_PATH: record_with_request(url, prompt="A serene mountain landscape, " * 60)}
    archiver.succeed(url)
    events = archive_images.dependencies().archive._bucket._s3.meta.events

    def fail(params: dict[str, Any], **_: Any) -> None:
        if params["url_path"].endswith("request.json"):
            raise ClientError({"Error": {"Code": code}}, "PutObject")

    events.register("before-call.s3.PutObject", fail)
    assert archiver.run() == [TASK]
    assert archiver.item()["status"] == "SUCCEEDED"

    events.unregister("before-call.s3.PutObject", fail)
    assert archiver.run(tries=2) == []
    assert archiver.item()["status"] == "ARCHIVED"
    assert REQUEST_KEY in archiver.objects()
