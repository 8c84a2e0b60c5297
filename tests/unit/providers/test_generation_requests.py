"""The generation request in a provider's record is stored; an unreadable one never makes a report fail."""

import json
from typing import Any

import pytest

from catchlight.models import MAX_PROMPT_LENGTH, GenerationRequest
from catchlight.providers import PROVIDERS
from catchlight.providers.records import generation_request
from tests.unit.providers.cases import RECEIVED_AT, body_of, load
from tests.unit.providers.expected_polls import POLLS

CAT = GenerationRequest(prompt="a white siamese cat", size="1024x1024", seeds=(281520112,))
UNREADABLE: list[Any] = [None, "", "no JSON", "[" * 100_000, b"\xff", 7, [], {}, "[1]"]
MOUNTAIN = GenerationRequest(prompt="A serene mountain landscape", size="16:9")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("polls/flux-kontext/success.json", [MOUNTAIN]),
        ("polls/flux-kontext/content_policy.json", [MOUNTAIN]),
        ("polls/flux-kontext/unknown_422.json", [None]),
        ("polls/kie-market/success.json", [GenerationRequest(prompt=CAT.prompt, model="nano-banana-2", size="1:1")]),
        (
            "polls/kie-market/success_flux_fields_only.json",
            [GenerationRequest(prompt=CAT.prompt, model="seedream/5-lite-text-to-image", size="1:1")],
        ),
        ("polls/acedata/success.json", [CAT]),
        ("polls/acedata/failed.json", [CAT.model_copy(update={"seeds": None})]),
        ("polls/acedata/unknown.json", [None]),
    ],
)
def test_a_record_has_the_generation_request(path: str, expected: list[GenerationRequest | None]) -> None:
    provider = PROVIDERS[path.split("/")[1]]
    poll = POLLS[path]

    reports = provider.parse_poll(
        provider.poll_request(poll.task_ids), poll.http_status, load(path), received_at=RECEIVED_AT
    )

    assert [report.request for report in reports] == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("callbacks/flux-kontext/success.json", None),
        ("callbacks/nanobanana/success.json", None),
        (
            "callbacks/kie-market/success.json",
            GenerationRequest(prompt=CAT.prompt, model="nano-banana-pro", size="1:1"),
        ),
        (
            "callbacks/kie-market/success_input_as_string.json",
            GenerationRequest(prompt=CAT.prompt, model="seedream/5-lite-text-to-image", size="1:1"),
        ),
        (
            "callbacks/acedata/success_several_images.json",
            GenerationRequest(prompt="a white siamese cat", seeds=(281520112, 281520113, 281520114)),
        ),
    ],
)
def test_a_callback_has_the_generation_request_if_the_provider_sends_it(
    path: str, expected: GenerationRequest | None
) -> None:
    event = load(path)
    provider = PROVIDERS[event["pathParameters"]["provider"]]

    assert provider.parse_callback(body_of(event), received_at=RECEIVED_AT).request == expected


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ({"prompt": "p", "model": "flux-kontext-pro"}, GenerationRequest(prompt="p", model="flux-kontext-pro")),
        ('{"prompt": "p", "image_size": "1:1"}', GenerationRequest(prompt="p", size="1:1")),
        ({"seed": "17"}, GenerationRequest(seeds=(17,))),
        ({"input": {"prompt": "p", "seed": 17}}, GenerationRequest(prompt="p", seeds=(17,))),
        ('{"model": "m", "input": "{\\"prompt\\": \\"p\\"}"}', GenerationRequest(prompt="p", model="m")),
        ({"prompt": "p", "input": "{"}, GenerationRequest(prompt="p")),
        ({"prompt": "x" * 9000}, GenerationRequest(prompt="x" * MAX_PROMPT_LENGTH)),
        ({"prompt": "half a pair: \ud800"}, GenerationRequest(prompt="half a pair: ?")),
        ({"prompt": ["no text"], "seed": True, "size": 7, "model": {}}, None),
        ({"prompt": "", "seed": None}, None),
        *((value, None) for value in UNREADABLE),
    ],
)
def test_unreadable_fields_of_a_request_are_left_out(recorded: Any, expected: GenerationRequest | None) -> None:
    assert generation_request(recorded) == expected


def test_a_record_with_an_unreadable_request_is_still_a_report() -> None:
    provider = PROVIDERS["flux-kontext"]
    record = load("polls/flux-kontext/success.json")
    record["data"]["paramJson"] = json.dumps({"prompt": {"not": "text"}})

    (report,) = provider.parse_poll(provider.poll_request(["task12345"]), 200, record, received_at=RECEIVED_AT)

    assert report.images
    assert report.request is None


def test_the_seeds_of_the_images_replace_the_requested_seed() -> None:
    recorded = {"prompt": "p", "seed": 17}
    assert generation_request(recorded, seeds=(1, 2)) == GenerationRequest(prompt="p", seeds=(1, 2))
    assert generation_request(recorded, seeds=(None,)) == GenerationRequest(prompt="p", seeds=(17,))
