"""Lists the expected result of every file under events/callbacks/."""

from catchlight.models import FailureReason, Image, Media, SkippedOutput
from tests.unit.providers.cases import ExpectedReport, Refused, failed, hint, origin, pending, result, succeeded

ORIGIN = origin("https://example.com/original.jpg", "2026-01-06T00:30:00Z")
RESULT = result("https://example.com/result.jpg", "2026-01-20T00:20:00Z")
BOTH = succeeded("task12345", ORIGIN, RESULT)
ONLY_RESULT = succeeded("task12345", RESULT)
POLICY = "Your prompt was flagged by Website as violating content policies"
INTERNAL = "Internal Error, Please try again later"
FAILED = "Image generation task failed"

FLUX_KONTEXT: dict[str, ExpectedReport | Refused] = {
    "success": BOTH,
    "content_policy": failed("task12345", FailureReason.CONTENT_POLICY, "400", POLICY),
    "internal_error": failed("task12345", FailureReason.INTERNAL, "500", INTERNAL),
    "generation_failed": failed("task12345", FailureReason.GENERATION_FAILED, "501", FAILED),
    "unknown_code": failed("task12345", FailureReason.OTHER, "505", "Feature disabled"),
    "failure_info_null": failed("task12345", FailureReason.CONTENT_POLICY, "400", POLICY),
    "failure_info_missing": failed("task12345", FailureReason.GENERATION_FAILED, "501", FAILED),
    "failure_data_null": failed("task12345", FailureReason.INTERNAL, "500", INTERNAL),
    "failure_data_missing": failed("task12345", FailureReason.INTERNAL, "500", INTERNAL),
    "failure_msg_null": failed("task12345", FailureReason.GENERATION_FAILED, "501", ""),
    "code_as_string": BOTH,
    "failure_code_as_string": failed("task12345", FailureReason.CONTENT_POLICY, "400", POLICY),
    "code_is_true": Refused("code: should be an integer"),
    "code_missing": Refused("code: is missing"),
    "origin_null": ONLY_RESULT,
    "origin_null_string": ONLY_RESULT,
    "origin_null_string_with_blanks": ONLY_RESULT,
    "origin_empty": ONLY_RESULT,
    "success_without_url": hint("task12345"),
    "success_info_null": hint("task12345"),
    "url_not_http": Refused("body: success without a usable image URL"),
    "url_is_a_list": Refused("body: success without a usable image URL"),
    "id_as_task_id": BOTH,
    "id_beside_data": BOTH,
    "id_beside_data_as_task_id": BOTH,
    "id_in_four_places": BOTH,
    "id_null_in_data": BOTH,
    "id_ambiguous": Refused("task id is ambiguous: the body holds several that differ"),
    "id_missing": Refused("task id is missing: looked for taskId and task_id, in data and beside it"),
    "id_malformed": Refused("task id is malformed: should be 1 to 128 letters, digits, - and _"),
    "id_is_a_number": Refused("task id is malformed: should be 1 to 128 letters, digits, - and _"),
    "extra_keys": BOTH,
    # The record contains its completion time: 00:15, five minutes before it was received.
    "record": succeeded(
        "task12345",
        origin("https://example.com/original.jpg", "2026-01-06T00:25:00Z"),
        result("https://example.com/result.jpg", "2026-01-20T00:15:00Z"),
    ),
    "base64": BOTH,
    "signed": BOTH,
    "trailing_slash": BOTH,
    "submission_answer": hint("task12345"),
    "body_is_a_list": Refused("body: should be an object"),
}

APIKLEY: dict[str, ExpectedReport | Refused] = {
    "success": succeeded(
        "task12345",
        origin("https://bfldeliveryprod.blob.core.windows.net/results/original.jpg", "2026-01-06T00:30:00Z"),
        result("https://tempfile.apikley.ru/f/result.jpg", "2026-01-20T00:20:00Z"),
    ),
    "generation_failed": failed("task12345", FailureReason.GENERATION_FAILED, "501", FAILED),
}

NANOBANANA_POLICY = "Your prompt has been flagged for violating content policy"
NANOBANANA_INTERNAL = "Internal error, please try again later"
NANOBANANA_RESULT = result(
    "https://tempfile.aiquickdraw.com/workers/nano/image_1767658623526_gq6m8x.png", "2026-01-07T00:17:04Z"
)

NANOBANANA: dict[str, ExpectedReport | Refused] = {
    "success": succeeded(
        "9e4286b7b27960dfeb8e1d279b50b28d",
        result(
            "https://tempfile.aiquickdraw.com/r/9e4286b7b27960dfeb8e1d279b50b28d_1756467493.jpg",
            "2026-01-07T00:20:00Z",
        ),
    ),
    "content_policy": failed("task12345", FailureReason.CONTENT_POLICY, "400", NANOBANANA_POLICY),
    "generation_failed": failed("task12345", FailureReason.GENERATION_FAILED, "501", FAILED),
    "internal_error": failed("task12345", FailureReason.INTERNAL, "500", NANOBANANA_INTERNAL),
    "record_success": succeeded("task12345", NANOBANANA_RESULT),
    "record_success_code_501": succeeded("task12345", NANOBANANA_RESULT),
    "record_generate_failed": failed("task12345", FailureReason.GENERATION_FAILED, "501", FAILED),
    "record_content_policy": failed("task12345", FailureReason.CONTENT_POLICY, "400", NANOBANANA_POLICY),
    "record_create_failed": failed("task12345", FailureReason.CREATE_FAILED, "500", NANOBANANA_INTERNAL),
    "record_generating": pending("task12345"),
    "record_without_url": hint("task12345"),
    "record_unknown_flag": Refused("data.successFlag: Input should be 0, 1, 2 or 3"),
}

# The documented callbacks are of 2025; the other tasks were completed at 00:17:04, three minutes before RECEIVED_AT.
MARKET_URL = "https://tempfile.aiquickdraw.com/p/558a0e58d58a6cb69e5c6a55170398da_1_1786413281_4092.jpg"
MARKET_VIDEO = SkippedOutput(media=Media.VIDEO, url="https://tempfile.aiquickdraw.com/seedance/1767658624_ab12cd.mp4")
MARKET_TEXT = SkippedOutput(media=Media.TEXT)
MARKET_END = "2026-01-07T00:17:04Z"
MARKET_SUCCESS = succeeded("task12345", result(MARKET_URL, MARKET_END))
MARKET_FAILED = "Playground task failed."


def _market_images(*paths: str) -> tuple[Image, ...]:
    return tuple(result(f"https://tempfile.aiquickdraw.com/{path}", MARKET_END) for path in paths)


KIE_MARKET: dict[str, ExpectedReport | Refused] = {
    "success": succeeded("e989621f54392584b05867f87b160672", result(MARKET_URL, "2025-08-20T10:34:04Z")),
    "success_input_as_string": MARKET_SUCCESS,
    "success_several_images": succeeded("task12345", *_market_images(*(f"p/grid_{index}.png" for index in range(4)))),
    "success_result_as_object": MARKET_SUCCESS,
    "success_result_as_url": MARKET_SUCCESS,
    "success_result_twice_encoded": MARKET_SUCCESS,
    "success_unknown_field": MARKET_SUCCESS,
    "success_with_video": succeeded(
        "task12345", *_market_images("seedance/first.png", "seedance/last.png"), skipped=(MARKET_VIDEO,)
    ),
    "success_image_and_video": succeeded("task12345", result(MARKET_URL, MARKET_END), skipped=(MARKET_VIDEO,)),
    # No failure: the service has generated what was requested, and charged for it.
    "video": succeeded("task12345", skipped=(MARKET_VIDEO,)),
    "text": succeeded("task12345", skipped=(MARKET_TEXT,)),
    "text_in_urls": succeeded("task12345", skipped=(MARKET_TEXT,)),
    "record_with_flux_fields": MARKET_SUCCESS,
    "state_missing": MARKET_SUCCESS,
    "progress": pending("task12345"),
    "failure": failed("bd3a37c523149e4adf45a3ddb5faf1a8", FailureReason.INTERNAL, "500", "Internal server error"),
    "failure_result_null": failed(
        "bd3a37c523149e4adf45a3ddb5faf1a8", FailureReason.INTERNAL, "500", "Internal server error"
    ),
    "failure_word": failed(
        "task12345", FailureReason.GENERATION_FAILED, "GENERATION_FAILED", "The model could not generate the image"
    ),
    "failure_content_policy": failed("task12345", FailureReason.CONTENT_POLICY, "400", POLICY),
    "failure_sensitive": failed(
        "task12345", FailureReason.CONTENT_POLICY, "sensitive_content", "The input was flagged as sensitive"
    ),
    "failure_other_code": failed("task12345", FailureReason.OTHER, "422", "The image could not be read"),
    "failure_without_code": failed("task12345", FailureReason.GENERATION_FAILED, "501", MARKET_FAILED),
    "failure_data_null": failed("task12345", FailureReason.GENERATION_FAILED, "501", MARKET_FAILED),
    "failure_code_200": failed("task12345", FailureReason.INTERNAL, "500", "Internal server error"),
    "result_cut": Refused("data.resultJson: should be JSON, but is cut off or malformed"),
    "result_empty": hint("task12345", "success without a result"),
    "state_and_code_unknown": Refused("data: state: should be waiting, queuing, generating, success, fail"),
    "submission_answer": hint("2aeff425a5f21580d2f225c4129e63ab", "success without a result"),
}

ACEDATA_ID = "2db0168c-2373-4367-8d9a-9dc778802e8a"
ACEDATA_IMAGE = result(
    "https://sf-maas-uat-prod.oss-cn-shanghai.aliyuncs.com/outputs/57d9ff7c-5a00-409e-9dcc-90f35b38d16e_0.png",
    "2026-01-07T00:20:00Z",
)


def _acedata_image(index: int) -> str:
    return f"https://platform.cdn.acedata.cloud/flux/{ACEDATA_ID}_{index}.png"


ACEDATA: dict[str, ExpectedReport | Refused] = {
    "success": succeeded(ACEDATA_ID, ACEDATA_IMAGE),
    "success_several_images": succeeded(
        ACEDATA_ID,
        result(_acedata_image(0), "2026-01-07T00:20:00Z"),
        result(_acedata_image(1), "2026-01-07T00:20:00Z"),
        result(_acedata_image(2), "2026-01-07T00:20:00Z"),
    ),
    "success_timings_int": succeeded(ACEDATA_ID, ACEDATA_IMAGE),
    "success_bare_entry": succeeded(ACEDATA_ID, ACEDATA_IMAGE),
    "success_one_without_url": succeeded(ACEDATA_ID, result(_acedata_image(2), "2026-01-07T00:20:00Z")),
    "success_extra_keys": succeeded(ACEDATA_ID, ACEDATA_IMAGE),
    "success_without_images": hint(ACEDATA_ID),
    "success_without_urls": hint(ACEDATA_ID),
    "success_is_a_string": Refused("success: Input should be a valid boolean"),
    "data_is_an_object": Refused("data: should be a list"),
    "failure": failed(ACEDATA_ID, FailureReason.INTERNAL, "api_error", "fetch failed"),
    "failure_content_policy": failed(
        ACEDATA_ID, FailureReason.CONTENT_POLICY, "content_policy_violation", "Request Moderated"
    ),
    "failure_other_code": failed(ACEDATA_ID, FailureReason.GENERATION_FAILED, "bad_request", "invalid size"),
    "failure_bare_string": failed(ACEDATA_ID, FailureReason.GENERATION_FAILED, None, "fetch failed"),
    "failure_without_error": failed(ACEDATA_ID, FailureReason.GENERATION_FAILED, None, ""),
    "failure_without_success": failed(ACEDATA_ID, FailureReason.INTERNAL, "api_error", "fetch failed"),
    # Only polling can identify this task.
    "failure_without_id": Refused("task id is missing: looked for taskId and task_id, in data and beside it"),
    "submission_answer": Refused("body: neither a failure nor a success"),
}

# By path under events/.
CALLBACKS: dict[str, ExpectedReport | Refused] = {
    f"callbacks/{provider}/{name}.json": expected
    for provider, table in (
        ("flux-kontext", FLUX_KONTEXT),
        ("apikley", APIKLEY),
        ("nanobanana", NANOBANANA),
        ("kie-market", KIE_MARKET),
        ("acedata", ACEDATA),
    )
    for name, expected in table.items()
}
