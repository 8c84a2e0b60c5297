"""What S3 is sent: a checksum that it checks itself, and a body that is hashed once."""

import base64
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from typing import Any

import pytest

from image_tasks.aws_clients import AwsClients
from image_tasks.image_bucket import S3_CONFIG, ImageBucket
from image_tasks.image_fetching import FetchedImage
from image_tasks.image_formats import read_image_facts
from tests.image_server import picture
from tests.integration.conftest import an_account

BODY = picture()


@pytest.fixture
def requests() -> Iterator[list[Any]]:
    """The requests that reach S3."""
    with an_account():
        yield []


def test_a_body_is_signed_unseen_and_checked_by_its_checksum(requests: list[Any]) -> None:
    s3 = AwsClients().s3(S3_CONFIG)
    s3.create_bucket(Bucket="images")
    s3.meta.events.register("before-send.s3.PutObject", lambda request, **_: requests.append(request))
    facts = read_image_facts(BytesIO(BODY), len(BODY))
    image = FetchedImage(BytesIO(BODY), len(BODY), sha256(BODY).digest(), facts, "images.example")

    ImageBucket(s3, "images").put("images/a.png", image, task="acedata#1")

    (request,) = requests
    headers = {
        name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
    }
    assert request.url.startswith("https://")
    assert headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert headers["x-amz-checksum-sha256"] == base64.b64encode(sha256(BODY).digest()).decode()
    assert headers["content-length"] == str(len(BODY))
    assert "transfer-encoding" not in headers
