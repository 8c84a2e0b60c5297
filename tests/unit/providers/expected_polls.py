"""Lists the expected result of every file under events/polls/."""

from catchlight.errors import (
    ProviderBusyError,
    ProviderError,
    ProviderRefusedError,
    ProviderUnavailableError,
    RequestRefusedError,
    UnreadableAnswerError,
)
from catchlight.models import FailureReason, LastAnswer, Media, SkippedOutput
from tests.unit.providers.cases import ExpectedReport, Poll, failed, origin, pending, result, succeeded, unreadable

NOT_FOUND = LastAnswer.NOT_FOUND

POLICY = "Your prompt was flagged by Website as violating content policies"
INTERNAL = "Internal Error, Please try again later"
FAILED = "Image generation task failed"

# Completed at 2024-03-20T10:30:00Z, in any of the formats.
COMPLETED = succeeded(
    "task12345",
    origin("https://example.com/original.jpg", "2024-03-20T10:40:00Z"),
    result("https://example.com/result.jpg", "2024-04-03T10:30:00Z"),
)
# As if completed when received, at 2026-01-06T00:20:00Z.
COMPLETED_NOW = succeeded(
    "task12345",
    origin("https://example.com/original.jpg", "2026-01-06T00:30:00Z"),
    result("https://example.com/result.jpg", "2026-01-20T00:20:00Z"),
)


def _about_task12345(expected: ExpectedReport | tuple[type[ProviderError], str]) -> Poll:
    return Poll(("task12345",), [expected] if isinstance(expected, ExpectedReport) else expected)


FLUX_KONTEXT: dict[str, ExpectedReport | tuple[type[ProviderError], str]] = {
    "success": COMPLETED,
    "generating": pending("task12345"),
    "generating_progress": pending("task12345"),
    "create_failed": failed("task12345", FailureReason.CREATE_FAILED, "500", INTERNAL),
    "content_policy": failed("task12345", FailureReason.CONTENT_POLICY, "400", POLICY),
    "internal_error": failed("task12345", FailureReason.INTERNAL, "500", INTERNAL),
    "generation_failed": failed("task12345", FailureReason.GENERATION_FAILED, "501", FAILED),
    "failed_without_code": failed("task12345", FailureReason.GENERATION_FAILED, None, ""),
    "failed_unknown_code": failed("task12345", FailureReason.OTHER, "422", "Unknown"),
    "failed_code_as_string": failed("task12345", FailureReason.CONTENT_POLICY, "400", POLICY),
    # Not found is not final: the record may exist a moment later.
    "unknown_data_null": pending("task12345", NOT_FOUND),
    "unknown_422": pending("task12345", NOT_FOUND),
    "unknown_422_record_info_null": pending("task12345", NOT_FOUND),
    "unknown_404": pending("task12345", NOT_FOUND),
    # The envelope is about the request: none of these fails the task.
    "unauthorized": (
        ProviderRefusedError,
        'flux-kontext answered 401: the API key is missing or wrong, and says "Unauthorized"',
    ),
    "no_credits": (
        ProviderRefusedError,
        'flux-kontext answered 402: the account has no credits, and says "Insufficient Credits"',
    ),
    "forbidden": (ProviderRefusedError, 'flux-kontext answered 403: access is denied, and says "Forbidden"'),
    "rate_limited": (
        ProviderBusyError,
        'flux-kontext answered 429: the rate limit is reached, and says "Rate Limited"',
    ),
    "maintenance": (ProviderBusyError, 'flux-kontext answered 455: maintenance, and says "Service Unavailable"'),
    "server_error": (
        ProviderUnavailableError,
        'flux-kontext answered 500: the request failed, and says "Server Error"',
    ),
    # The only code of the envelope that is about the task.
    "request_failed": failed("task12345", FailureReason.GENERATION_FAILED, "501", "Generation Failed"),
    "failed_in_error_envelope": failed("task12345", FailureReason.INTERNAL, "500", "Server Error"),
    "success_in_error_envelope": COMPLETED,
    "create_failed_content_policy": failed("task12345", FailureReason.CONTENT_POLICY, "400", POLICY),
    "disabled": (
        ProviderRefusedError,
        'flux-kontext answered 505: the feature is disabled, and says "Feature Disabled"',
    ),
    "response_as_json_string": COMPLETED,
    "response_as_bare_url": succeeded("task12345", result("https://example.com/result.jpg", "2024-04-03T10:30:00Z")),
    "response_as_other_string": unreadable("task12345", "data: success without a usable image URL"),
    "flag_as_string": COMPLETED,
    "flag_unknown": (UnreadableAnswerError, "data.successFlag: Input should be 0, 1, 2 or 3"),
    "time_naive": COMPLETED,
    "time_epoch_milliseconds": COMPLETED,
    "time_epoch_milliseconds_as_string": COMPLETED,
    "time_hour_24": COMPLETED_NOW,
    "time_in_the_future": COMPLETED_NOW,
    "success_without_url": unreadable("task12345", "data: success without an image URL"),
    "another_task": (UnreadableAnswerError, "flux-kontext answered with another task's record"),
    "submission_answer": (UnreadableAnswerError, "data.successFlag: is missing"),
    "shape_unknown": (UnreadableAnswerError, "flux-kontext answered without a code"),
}

APIKLEY: dict[str, Poll] = {
    "success": _about_task12345(
        succeeded(
            "task12345",
            origin("https://bfldeliveryprod.blob.core.windows.net/results/original.jpg", "2024-03-20T10:40:00Z"),
            result("https://tempfile.apikley.ru/f/result.jpg", "2024-04-03T10:30:00Z"),
        )
    ),
    "unauthorized": _about_task12345(
        (
            ProviderRefusedError,
            'apikley answered 401: the API key is missing or wrong, and says "Unauthorized"',
        )
    ),
}

NANOBANANA: dict[str, Poll] = {
    # Beijing time: 08:17:04 there is 00:17:04 UTC.
    "success": Poll(
        ("933259930a1fc855a4e3835b7c60a028",),
        [
            succeeded(
                "933259930a1fc855a4e3835b7c60a028",
                result(
                    "https://tempfile.aiquickdraw.com/workers/nano/image_1767658623526_gq6m8x.png",
                    "2026-01-07T00:17:04Z",
                ),
            )
        ],
    ),
    "success_with_origin": _about_task12345(
        succeeded(
            "task12345",
            origin(
                "https://tempfile.aiquickdraw.com/workers/nano/origin_1767658623526.png",
                "2026-01-06T00:27:04Z",
            ),
            result(
                "https://tempfile.aiquickdraw.com/workers/nano/image_1767658623526_gq6m8x.png",
                "2026-01-07T00:17:04Z",
            ),
        )
    ),
    "generate_failed": _about_task12345(failed("task12345", FailureReason.GENERATION_FAILED, "501", FAILED)),
}

MARKET_ID = "2aeff425a5f21580d2f225c4129e63ab"
MARKET_END = "2026-01-07T00:17:04Z"


def _market_success(*paths: str, skipped: tuple[SkippedOutput, ...] = ()) -> ExpectedReport:
    images = (result(f"https://tempfile.aiquickdraw.com/{path}", MARKET_END) for path in paths)
    return succeeded(MARKET_ID, *images, skipped=skipped)


MARKET_RESULT = "p/558a0e58d58a6cb69e5c6a55170398da_1_1786413281_4092.jpg"
MARKET_VIDEO = SkippedOutput(media=Media.VIDEO, url="https://tempfile.aiquickdraw.com/seedance/1767658624_ab12cd.mp4")

KIE_MARKET: dict[str, ExpectedReport | tuple[type[ProviderError], str]] = {
    "waiting": pending(MARKET_ID),
    "queuing": pending(MARKET_ID),
    "generating": pending(MARKET_ID),
    "progress": pending(MARKET_ID),
    "success": _market_success("na2/1767658624526_gq6m8x.jpg"),
    "success_several_images": _market_success(*(f"wan27-image-alibaba/{index}.png" for index in range(12))),
    "success_video": _market_success(skipped=(MARKET_VIDEO,)),
    "success_text": _market_success(skipped=(SkippedOutput(media=Media.TEXT),)),
    # The same URL in `resultJson` and in `response` is one image.
    "success_flux_fields": _market_success(MARKET_RESULT),
    "success_flux_fields_only": _market_success(MARKET_RESULT),
    "running_flux_fields": pending(MARKET_ID),
    "fail": failed(MARKET_ID, FailureReason.INTERNAL, "500", "Internal server error"),
    "fail_flux_fields": failed(MARKET_ID, FailureReason.GENERATION_FAILED, "501", FAILED),
    "unknown_422": pending(MARKET_ID, NOT_FOUND),
    "unknown_404": pending(MARKET_ID, NOT_FOUND),
    "task_id_missing": (
        ProviderUnavailableError,
        'kie-market answered 400: the request failed, and says "taskId parameter is required"',
    ),
    "unauthorized": (
        ProviderRefusedError,
        'kie-market answered 401: the API key is missing or wrong, and says "You do not have access permissions"',
    ),
    "key_limit": (
        ProviderRefusedError,
        'kie-market answered 433: the key has reached its own limit, and says "The sub-key has reached its limit"',
    ),
    "maintenance": (ProviderBusyError, 'kie-market answered 455: maintenance, and says "Service Unavailable"'),
    "timeout": (ProviderUnavailableError, 'kie-market answered 408: the request failed, and says "Upstream timeout"'),
    "another_task": (UnreadableAnswerError, "kie-market answered with another task's record"),
    "result_cut": unreadable(MARKET_ID, "data.resultJson: should be JSON, but is cut off or malformed"),
    "result_empty": unreadable(MARKET_ID, "data: success without a result"),
    "state_unknown": (UnreadableAnswerError, "data: state: should be waiting, queuing, generating, success, fail"),
}

CAT = "2db0168c-2373-4367-8d9a-9dc778802e8a"
OTHER_CAT = "72bdd69d-290d-4710-a6d4-60c78968865a"
CAT_URL = "https://sf-maas-uat-prod.oss-cn-shanghai.aliyuncs.com/outputs/57d9ff7c-5a00-409e-9dcc-90f35b38d16e_0.png"
OTHER_CAT_URL = (
    "https://sf-maas-uat-prod.oss-cn-shanghai.aliyuncs.com/outputs/57b5c7e5-3436-466d-86ed-583ede4a3d7c_0.png"
)
CAT_SUCCEEDED = succeeded(CAT, result(CAT_URL, "2026-01-07T00:20:00Z"))
OTHER_CAT_SUCCEEDED = succeeded(OTHER_CAT, result(OTHER_CAT_URL, "2026-01-07T00:20:00Z"))

TRACE = "(trace 2cf86e86-22a4-46e1-ac2f-032c0f2a4e89)"
REFUSED = "the key or the account is refused"
ADVICE = "the account needs both Flux Images and Flux Tasks, which is acquired separately"
BAD_REQUEST = "acedata answered HTTP 400: the request is refused"
NO_RECORD = f'acedata answered HTTP 500 with no record of a task, and says "fetch failed" {TRACE}'

ACEDATA: dict[str, Poll] = {
    "success": Poll((CAT,), [CAT_SUCCEEDED]),
    "success_finished_at": Poll((CAT,), [succeeded(CAT, result(CAT_URL, "2025-01-09T02:51:13.51Z"))]),
    "batch": Poll((CAT, OTHER_CAT), [CAT_SUCCEEDED, OTHER_CAT_SUCCEEDED]),
    "batch_one_missing": Poll((CAT, OTHER_CAT), [pending(CAT, NOT_FOUND), OTHER_CAT_SUCCEEDED]),
    "batch_one_malformed": Poll(
        (CAT, OTHER_CAT), [pending(CAT, LastAnswer.UNREADABLE, "response: should be an object"), OTHER_CAT_SUCCEEDED]
    ),
    "batch_none_known": Poll((CAT, OTHER_CAT), [pending(CAT, NOT_FOUND), pending(OTHER_CAT, NOT_FOUND)]),
    "batch_without_items": Poll(
        (CAT, OTHER_CAT), (UnreadableAnswerError, "acedata answered a batch without a list of items")
    ),
    "running_no_response": Poll((CAT,), [pending(CAT)]),
    "running_response_null": Poll((CAT,), [pending(CAT)]),
    "running_success_without_data": Poll((CAT,), [pending(CAT)]),
    "running_bare_string_error": Poll((CAT,), [pending(CAT)]),
    "failed": Poll((CAT,), [failed(CAT, FailureReason.INTERNAL, "api_error", "fetch failed")]),
    "failed_without_finished_at": Poll((CAT,), [failed(CAT, FailureReason.INTERNAL, "api_error", "fetch failed")]),
    "failed_bare_string": Poll((CAT,), [failed(CAT, FailureReason.GENERATION_FAILED, None, "timeout")]),
    "success_without_url": Poll((CAT,), [unreadable(CAT, "body: success without an image URL")]),
    "unknown": Poll((CAT,), [pending(CAT, NOT_FOUND)]),
    "another_task": Poll((CAT,), (UnreadableAnswerError, "acedata answered without a record of the requested task")),
    # Documented as bad requests: they do not concern the key.
    "error_token_mismatched": Poll(
        (CAT,),
        (RequestRefusedError, f'{BAD_REQUEST}, and says "The token is not matched with the API." {TRACE}'),
        400,
    ),
    "error_api_not_implemented": Poll(
        (CAT,), (RequestRefusedError, f'{BAD_REQUEST}, and says "The API is not implemented." {TRACE}'), 400
    ),
    "error_invalid_token": Poll(
        (CAT,),
        (
            ProviderRefusedError,
            f'acedata answered HTTP 401: {REFUSED}, and says "The token is invalid." {TRACE}; {ADVICE}',
        ),
        401,
    ),
    "error_used_up": Poll(
        (CAT,),
        (ProviderRefusedError, f'acedata answered HTTP 403: {REFUSED}, and says "Your balance is used up." {TRACE}'),
        403,
    ),
    "error_too_many_requests": Poll(
        (CAT,),
        (
            ProviderBusyError,
            f'acedata answered HTTP 429: the rate limit is reached, and says "Too many requests." {TRACE}',
        ),
        429,
    ),
    "error_api_error": Poll((CAT,), (ProviderUnavailableError, NO_RECORD), 500),
    "error_without_success": Poll((CAT,), (ProviderUnavailableError, NO_RECORD), 500),
}

# By path under events/.
POLLS: dict[str, Poll] = {
    f"polls/{provider}/{name}.json": poll
    for provider, table in (
        ("flux-kontext", {name: _about_task12345(expected) for name, expected in FLUX_KONTEXT.items()}),
        ("apikley", APIKLEY),
        ("nanobanana", NANOBANANA),
        (
            "kie-market",
            {
                name: Poll((MARKET_ID,), [expected] if isinstance(expected, ExpectedReport) else expected)
                for name, expected in KIE_MARKET.items()
            },
        ),
        ("acedata", ACEDATA),
    )
    for name, poll in table.items()
}
