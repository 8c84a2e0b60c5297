"""The facts of each provider: addresses, lifetimes and limits, as they were measured or documented."""

from datetime import timedelta
from typing import Any

import pytest

from catchlight.models import ImageKind
from catchlight.providers import PROVIDERS

KIE_HOSTS = ("*.aiquickdraw.com", "*.redpandaai.co", "*.kie.ai", "*.aliyuncs.com")

FACTS: dict[str, dict[str, Any]] = {
    "flux-kontext": {
        "base_url": "https://api.kie.ai",
        "submit_paths": {"generate": "/api/v1/flux/kontext/generate"},
        "image_hosts": (*KIE_HOSTS, "*.bfl.ai", "bfldeliveryprod.blob.core.windows.net", "fal.media", "*.fal.media"),
        "url_lifetimes": {ImageKind.ORIGIN: timedelta(minutes=10), ImageKind.RESULT: timedelta(days=14)},
        "poll_batch_size": 1,
        "max_concurrent_polls": 100,
        "callback_url_field": "callBackUrl",
    },
    "apikley": {
        "base_url": "https://api.apikley.ru",
        "submit_paths": {"generate": "/api/v1/flux/kontext/generate"},
        "image_hosts": (
            "*.apikley.ru",
            *KIE_HOSTS,
            "*.bfl.ai",
            "bfldeliveryprod.blob.core.windows.net",
            "fal.media",
            "*.fal.media",
        ),
        "url_lifetimes": {ImageKind.ORIGIN: timedelta(minutes=10), ImageKind.RESULT: timedelta(days=14)},
        "poll_batch_size": 1,
        "max_concurrent_polls": 100,
        "callback_url_field": "callBackUrl",
    },
    "nanobanana": {
        "base_url": "https://api.nanobananaapi.ai",
        "submit_paths": {
            "generate": "/api/v1/nanobanana/generate",
            "generate-2": "/api/v1/nanobanana/generate-2",
            "generate-pro": "/api/v1/nanobanana/generate-pro",
        },
        "image_hosts": KIE_HOSTS,
        "url_lifetimes": {ImageKind.ORIGIN: timedelta(minutes=10), ImageKind.RESULT: timedelta(hours=24)},
        "poll_batch_size": 1,
        "max_concurrent_polls": 100,
        "callback_url_field": "callBackUrl",
    },
    "kie-market": {
        "base_url": "https://api.kie.ai",
        "submit_paths": {"createTask": "/api/v1/jobs/createTask"},
        "image_hosts": KIE_HOSTS,
        "url_lifetimes": {ImageKind.RESULT: timedelta(hours=24)},
        "poll_batch_size": 1,
        "max_concurrent_polls": 100,
        "callback_url_field": "callBackUrl",
    },
    "acedata": {
        "base_url": "https://api.acedata.cloud",
        "submit_paths": {"images": "/flux/images"},
        "image_hosts": (
            "*.acedata.cloud",
            "*.aliyuncs.com",
            "fal.media",
            "*.fal.media",
            "*.bfl.ai",
            "bfldeliveryprod.blob.core.windows.net",
        ),
        "url_lifetimes": {ImageKind.ORIGIN: timedelta(minutes=10), ImageKind.RESULT: timedelta(hours=24)},
        "poll_batch_size": 50,
        "max_concurrent_polls": 4,
        "callback_url_field": "callback_url",
    },
}


@pytest.mark.parametrize(("provider_id", "fact"), [(name, fact) for name, facts in FACTS.items() for fact in facts])
def test_a_fact_has_its_measured_or_documented_value(provider_id: str, fact: str) -> None:
    assert getattr(PROVIDERS[provider_id], fact) == FACTS[provider_id][fact]


def test_these_are_all_providers_under_their_own_names() -> None:
    assert [*PROVIDERS] == [*FACTS]
    assert {name: provider.id for name, provider in PROVIDERS.items()} == {name: name for name in FACTS}


@pytest.mark.parametrize(
    ("provider_id", "path"),
    [
        ("flux-kontext", "/api/v1/flux/kontext/record-info"),
        ("apikley", "/api/v1/flux/kontext/record-info"),
        ("nanobanana", "/api/v1/nanobanana/record-info"),
        ("kie-market", "/api/v1/jobs/recordInfo"),
    ],
)
def test_a_record_is_requested_by_its_task_id(provider_id: str, path: str) -> None:
    request = PROVIDERS[provider_id].poll_request(["t1"])

    assert (request.method, request.path, request.task_ids) == ("GET", path, ("t1",))
    assert (request.params, request.json) == ({"taskId": "t1"}, None)


def test_ace_datas_requests_for_one_record_and_for_many() -> None:
    one, many = (PROVIDERS["acedata"].poll_request(ids) for ids in (["t1"], ["t1", "t2"]))

    assert (one.method, one.path, one.params) == (many.method, many.path, many.params) == ("POST", "/flux/tasks", {})
    assert (one.task_ids, many.task_ids) == (("t1",), ("t1", "t2"))
    assert one.json == {"id": "t1", "action": "retrieve"}
    assert many.json == {"ids": ["t1", "t2"], "action": "retrieve_batch", "limit": 2}


@pytest.mark.parametrize("provider_id", FACTS)
def test_kie_ai_gives_download_urls_for_twenty_minutes_and_its_resellers_give_none(provider_id: str) -> None:
    lifetimes = {"flux-kontext": timedelta(minutes=20), "kie-market": timedelta(minutes=20)}

    provider = PROVIDERS[provider_id]
    assert provider.download_url_lifetime == lifetimes.get(provider_id)
    if provider.download_url_lifetime:
        assert provider.download_url_request("https://h.example/a").json == {"url": "https://h.example/a"}
        assert provider.parse_download_url(200, {"code": 200, "data": "https://h.example/b"}) == "https://h.example/b"
