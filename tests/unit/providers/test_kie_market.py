"""Records of the Market in all variations give the same result by callback and by poll, and never a false failure."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catchlight.aws.secrets import Redactor
from catchlight.models import MAX_IMAGES_PER_TASK, ImageKind, Media, TaskReport, TaskStatus
from catchlight.providers import PROVIDERS
from catchlight.providers.payloads import decode_json
from tests.canary_secrets import CALLBACK_TOKEN
from tests.unit.providers.cases import RECEIVED_AT, ExpectedReport, body_of, load
from tests.unit.providers.expected_callbacks import KIE_MARKET as CALLBACKS

MARKET = PROVIDERS["kie-market"]
ID = "2aeff425a5f21580d2f225c4129e63ab"
HOST = "https://tempfile.aiquickdraw.com"
RUNNING = ("waiting", "queuing", "generating")

IMAGES = st.builds(
    lambda folder, number, extension, query: f"{HOST}/{folder}/{number}{extension}{query}",
    st.sampled_from(["r", "p", "na2", "g/users/1", "images/chatgpt", "wan27-image-pro-alibaba"]),
    st.integers(0, 10**9),
    st.sampled_from([".jpg", ".png", ".webp", ".JPEG", "", "/image.jpg", ".mp4.png"]),
    st.sampled_from(["", "?signature=a.mp4", "#x.mp3"]),
)
VIDEOS = st.builds(
    lambda number, extension: f"{HOST}/seedance/{number}{extension}",
    st.integers(0, 10**9),
    st.sampled_from([".mp4", ".MP4", ".webm?token=a.png", ".mov#x"]),
)
TEXTS = st.sampled_from(["a white siamese cat", "{not JSON", "ftp://example.com/a.png"])
BLANKS = st.sampled_from([None, "", " ", "null"])
OUTPUTS = st.lists(IMAGES | VIDEOS | TEXTS | BLANKS, max_size=12)

as_it_is: Callable[[Any], Any] = lambda value: value  # noqa: E731
# An object is sent as it is, as JSON in a string, or as JSON in a string of JSON.
ENCODED = st.sampled_from([as_it_is, json.dumps, lambda value: json.dumps(json.dumps(value))])
INPUTS = st.fixed_dictionaries({"prompt": st.text(max_size=20)}, optional={"aspect_ratio": st.just("1:1")})
PARAMS = st.builds(
    lambda outer, inner, given: outer(
        {
            "callBackUrl": f"https://a.example/callbacks/kie-market/{CALLBACK_TOKEN}",
            "model": "google/nano-banana",
            "input": inner(given),
        }
    ),
    st.sampled_from([as_it_is, json.dumps]),
    st.sampled_from([as_it_is, json.dumps]),
    INPUTS,
)
TIMES = st.sampled_from([None, 0, 1767658624000, "1767658624000", "soon"])
COMMON = {"taskId": st.just(ID), "model": st.just("google/nano-banana")}
EXTRAS = {
    "param": PARAMS | st.just("{"),
    "paramJson": PARAMS,
    "costTime": st.none() | st.integers(0, 800),
    "completeTime": TIMES,
    "createTime": TIMES,
    "updateTime": TIMES,
    "consumeCredits": st.integers(0, 100),
    "creditsConsumed": st.integers(0, 100),
    "remainedCredits": st.integers(),
    "operationType": st.just("nano-banana"),
    "progress": st.integers(0, 100),
}


def _is_video(url: str) -> bool:
    return url.lower().partition("?")[0].partition("#")[0].endswith((".mp4", ".webm", ".mov"))


@st.composite
def successes(draw: st.DrawFn) -> tuple[dict[str, Any], list[str], int]:
    """A successful record, its image URLs, and the number of its other outputs."""
    outputs = draw(OUTPUTS)
    known = [str(output).strip() for output in outputs if output and output.strip() not in ("", "null")]
    images = [output for output in known if output.startswith("https://") and not _is_video(output)]
    others = {output if output.startswith("https://") else "a text" for output in known} - set(images)
    result: dict[str, Any] = {"resultUrls": outputs}
    if not known or draw(st.booleans()):
        result["lastFrameUrl"] = [f"{HOST}/seedance/last.png"]
        images.append(f"{HOST}/seedance/last.png")
    if draw(st.booleans()):
        result["resultObject"] = {"text": "a white siamese cat"}
        others.add("a text")
    record = draw(st.fixed_dictionaries(COMMON, optional=EXTRAS))
    record |= draw(
        st.sampled_from([{"state": "success"}, {"state": "success", "successFlag": 1}, {"successFlag": "1"}])
    )
    record |= draw(st.sampled_from([{}, {"failCode": None, "failMsg": None, "errorCode": None, "errorMessage": ""}]))
    places = draw(st.sampled_from([("resultJson",), ("response",), ("resultJson", "response")]))
    record |= {place: draw(ENCODED)(result) for place in places}
    record |= {place: draw(BLANKS) for place in {"resultJson", "response"} - {*places} if draw(st.booleans())}
    return record, list(dict.fromkeys(images)), len(others)


def polled(record: dict[str, Any], **envelope: Any) -> TaskReport:
    body = json.loads(json.dumps({"code": 200, "msg": "success", "data": record} | envelope))
    (report,) = MARKET.parse_poll(MARKET.poll_request([ID]), 200, body, received_at=RECEIVED_AT)
    return report


def called_back(record: dict[str, Any], **envelope: Any) -> TaskReport:
    body = {"code": 200, "msg": "Playground task completed successfully.", "data": record} | envelope
    return MARKET.parse_callback(decode_json(json.dumps(body).encode()), received_at=RECEIVED_AT)


@given(success=successes(), code=st.sampled_from([200, "200"]))
def test_a_success_has_its_images_in_their_order(success: tuple[dict[str, Any], list[str], int], code: Any) -> None:
    record, images, others = success

    for report in (polled(record, code=code), called_back(record, code=code)):
        assert report.status is TaskStatus.SUCCEEDED
        assert [(image.kind, image.url) for image in report.images] == [(ImageKind.RESULT, url) for url in images]
        assert len(report.skipped) == others


@given(
    record=st.fixed_dictionaries(
        {**COMMON, "state": st.sampled_from([*RUNNING, "GENERATING", " waiting "])},
        optional={
            **EXTRAS,
            "resultJson": BLANKS | st.just("{"),
            "successFlag": st.just(0),
            "response": st.none(),
            "failCode": st.none() | st.just(""),
            "failMsg": st.none() | st.just(""),
        },
    )
)
def test_a_running_task_is_pending(record: dict[str, Any]) -> None:
    assert polled(record).status is TaskStatus.PENDING
    assert called_back(record).status is TaskStatus.PENDING


@given(
    record=st.fixed_dictionaries(
        {**COMMON, "state": st.just("fail")},
        optional={
            **EXTRAS,
            "resultJson": BLANKS | st.just("{"),
            "failCode": st.none() | st.sampled_from(["500", 500, "GENERATION_FAILED", "", True, ["500"]]),
            "failMsg": st.none() | st.text(max_size=20),
            "successFlag": st.sampled_from([2, 3]),
        },
    ),
    code=st.sampled_from([200, 400, 500, 501, "501"]),
)
def test_a_failure_is_failed(record: dict[str, Any], code: Any) -> None:
    assert polled(record).status is TaskStatus.FAILED
    report = called_back(record, code=code)
    assert report.status is TaskStatus.FAILED
    assert report.failure is not None


@given(record=st.fixed_dictionaries({**COMMON, "param": PARAMS, "state": st.just("fail")}))
def test_the_request_is_read_through_all_levels_of_its_json(record: dict[str, Any]) -> None:
    request = polled(record).request
    assert request is not None
    assert request.model == "google/nano-banana"


@pytest.mark.parametrize(
    ("url", "media"),
    [
        (f"{HOST}/a.mp4", Media.VIDEO),
        (f"{HOST}/a.MOV?x=1", Media.VIDEO),
        (f"{HOST}/a.mp3", Media.AUDIO),
        (f"{HOST}/a.srt", Media.TEXT),
        (f"{HOST}/a.glb#1", Media.OTHER),
    ],
)
def test_an_output_that_is_no_image_is_named_by_its_extension(url: str, media: Media) -> None:
    report = polled({"taskId": ID, "state": "success", "resultJson": {"resultUrls": [url]}})
    assert [(output.media, output.url) for output in report.skipped] == [(media, url)]


def test_a_data_url_is_skipped_without_its_bytes() -> None:
    result = {"resultUrls": ["data:image/png;base64,aGVsbG8="]}
    report = polled({"taskId": ID, "state": "success", "resultJson": json.dumps(result)})
    assert [(output.media, output.url) for output in report.skipped] == [(Media.OTHER, None)]


def test_a_poll_keeps_the_first_of_too_many_images() -> None:
    urls = [f"{HOST}/p/{index}.png" for index in range(MAX_IMAGES_PER_TASK + 1)]
    report = polled({"taskId": ID, "state": "success", "resultJson": json.dumps({"resultUrls": urls})})
    assert [image.url for image in report.images] == urls[:-1]


READABLE = [name for name, expected in CALLBACKS.items() if isinstance(expected, ExpectedReport)]


@pytest.mark.parametrize("name", READABLE)
def test_our_token_in_the_record_is_overwritten_without_a_change_of_the_result(name: str) -> None:
    event = load(f"callbacks/kie-market/{name}.json")
    redacted = Redactor((CALLBACK_TOKEN,)).redact(event["body"].encode())

    assert CALLBACK_TOKEN not in redacted.decode()
    # The request's parameters are stored unchanged, with the callback URL.
    as_sent, as_kept = (
        MARKET.parse_callback(body, received_at=RECEIVED_AT).model_copy(update={"provider_record": None})
        for body in (body_of(event), decode_json(redacted))
    )
    assert as_kept == as_sent


def test_documented_callbacks_have_our_token_in_them() -> None:
    assert {"success", "success_input_as_string"} <= {
        name for name in READABLE if CALLBACK_TOKEN in load(f"callbacks/kie-market/{name}.json")["body"]
    }


def test_flux_kontext_does_not_read_a_record_of_the_market() -> None:
    # Newer records have Flux Kontext's `successFlag`, and other URLs beside it.
    flux = PROVIDERS["flux-kontext"]
    (report,) = flux.parse_poll(
        flux.poll_request([ID]), 200, load("polls/kie-market/success_flux_fields.json"), received_at=RECEIVED_AT
    )
    assert report.failure is not None
    assert report.failure.message.endswith("success without an image URL")


def test_one_unusable_url_does_not_affect_the_others() -> None:
    good, too_long = f"{HOST}/good.png", f"{HOST}/".ljust(9000, "x")
    urls = [too_long, good, f"{HOST}/a\nb.png", f"{HOST}/".ljust(9000, "x") + ".mp4"]
    report = polled({"taskId": ID, "state": "success", "resultJson": {"resultUrls": urls}})
    assert [image.url == good for image in report.images] == [False, True, False]
    assert [(output.media, output.url) for output in report.skipped] == [(Media.VIDEO, None)]

    nothing = polled({"taskId": ID, "state": "success", "resultJson": {"resultUrls": [too_long]}})
    assert (nothing.status, nothing.images) == (TaskStatus.FAILED, ())
