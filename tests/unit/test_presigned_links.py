"""Links to images have the host of the bucket's region: the global endpoint redirects, and the host is signed."""

from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest

from catchlight.api.presigned_urls import S3_CONFIG, PresignedLinks
from catchlight.aws.clients import AwsClients
from catchlight.models import Image

NOW = datetime(2026, 1, 6, tzinfo=UTC)
ARCHIVED = Image.model_validate(
    {
        "kind": "result",
        "url": "https://example.com/result.png",
        "expiresAt": "2026-01-20T00:00:00Z",
        "state": "ARCHIVED",
        "bucket": "pictures",
        "key": "images/acedata/1/result-0.png",
    }
)


@pytest.mark.parametrize(
    ("region", "domain"),
    [
        ("us-east-1", "amazonaws.com"),
        ("eu-central-1", "amazonaws.com"),
        ("ap-southeast-2", "amazonaws.com"),
        ("us-gov-west-1", "amazonaws.com"),
        ("cn-north-1", "amazonaws.com.cn"),
    ],
)
def test_a_link_leads_to_the_region_of_the_bucket(region: str, domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-key")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)

    link = PresignedLinks(lambda: AwsClients().s3(S3_CONFIG), "pictures", seconds=60, now=NOW).link(ARCHIVED)

    assert link is not None
    assert urlsplit(link).netloc == f"pictures.s3.{region}.{domain}"
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in link
