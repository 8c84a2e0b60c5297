"""Values of limits and client settings. Other tests read them from the code, and would not notice a changed value.

A change affects a promise, a cost or a safety margin: see the comment beside each constant.
"""

from datetime import timedelta
from importlib import import_module

import pytest

KIB, MIB = 1024, 1024 * 1024

LIMITS: dict[str, object] = {
    # Callbacks and reports.
    "functions.receive_callback.app.MAX_BODY_BYTES": 64 * KIB,
    "catchlight.models.MAX_IMAGES_PER_TASK": 32,
    "catchlight.models.MAX_URL_LENGTH": 8192,
    "catchlight.models.MAX_MESSAGE_LENGTH": 500,
    "catchlight.models.MAX_PROMPT_LENGTH": 8000,
    "catchlight.providers.payloads.MAX_CODE_LENGTH": 64,
    "catchlight.providers.payloads.MAX_INTEGER_DIGITS": 15,
    "catchlight.providers.payloads.MAX_EPOCH_SECONDS": 100_000_000_000,
    "catchlight.providers.kie.SIGNATURE_TOLERANCE": timedelta(minutes=5),
    "catchlight.tasks.reports.MAX_CONFLICTS": 10,
    "catchlight.tasks.reports.MAX_URLS_PER_CONFLICT": 4,
    "catchlight.tasks.reports.MAX_URL_LENGTH_IN_CONFLICT": 1024,
    # Calls of AWS.
    "catchlight.aws.batches.MAX_KEYS_PER_GET": 100,
    "catchlight.aws.batches.MAX_MESSAGES_PER_CALL": 10,
    "catchlight.aws.batches.MAX_EVENTS_PER_CALL": 10,
    "catchlight.aws.dynamodb.BATCH_DEADLINE_SECONDS": 5.0,
    "catchlight.aws.dynamodb.LONGEST_PAUSE_SECONDS": 1.0,
    "catchlight.api.queries.MAX_KEY_BYTES": 2048,
    "catchlight.api.routes.MAX_PAGE_BYTES": 4 * MIB,
    # Requests to providers and image hosts.
    "catchlight.outbound_http.MAX_CONNECT_SECONDS": 2.0,
    "catchlight.outbound_http.MIN_SHARE_SECONDS": 1.0,
    "catchlight.http_connections.KEEPALIVE_SECONDS": 5.0,
    "catchlight.outbound_http.REUSED_CONNECTION_SECONDS": 1.0,
    "catchlight.http_connections.MAX_IDLE_CONNECTIONS": 100,
    "catchlight.http_connections.MAX_HEAD_BYTES": 100 * KIB,
    "catchlight.http_connections.READ_BYTES": 64 * KIB,
    # Secrets.
    "catchlight.aws.secrets.CACHE_SECONDS": 300,
    "catchlight.aws.secrets.RECHECK_SECONDS": 30,
    # Webhooks.
    "catchlight.webhooks.sender.SEND_DEADLINE_SECONDS": 15.0,
    "catchlight.webhooks.signature.MIN_KEY_BYTES": 24,
    "catchlight.webhooks.signature.MAX_KEY_BYTES": 64,
    "catchlight.webhooks.retries.RETRIES_AT_SECONDS": (5, 305, 2_105, 9_305, 27_305, 63_305, 99_305),
    "catchlight.webhooks.retries.MAX_RETRY_AFTER_SECONDS": 3600,
    "functions.send_webhooks.app.MAX_MESSAGES": 10,
    # Polling.
    "catchlight.dispatch.MAX_TASKS_PER_EXECUTION": 50,
    "catchlight.polling.poll_round.BUSY_FACTOR": 4,
    "catchlight.polling.poll_round.MAX_BUSY_WAIT_SECONDS": 300,
    "catchlight.polling.provider_client.FIRST_REQUESTS": 10,
    "catchlight.polling.provider_client.REQUEST_TIMEOUT_SECONDS": 10.0,
    "catchlight.polling.provider_client.MAX_ANSWER_BYTES": 4 * MIB,
    "functions.poll_tasks.app.RESERVED_SECONDS": 20,
    # Images.
    "catchlight.images.fetcher.MAX_REDIRECTS": 3,
    "catchlight.images.url_policy.HTTPS_PORT": 443,
    "catchlight.images.url_policy.MAX_HOST_NAME_LENGTH": 253,
    "catchlight.images.fetcher.FETCH_DEADLINE_SECONDS": 7.5,
    "catchlight.images.stream.MAX_IMAGE_BYTES": 25 * MIB,
    "catchlight.images.stream.SPOOL_BYTES": MIB,
    "catchlight.images.stream.FILE_BUFFER_BYTES": 256 * KIB,
    "catchlight.images.stream.BLOCK_BYTES": 64 * KIB,
    "catchlight.images.stream.MIN_BLOCK_BYTES": 8 * KIB,
    "catchlight.images.formats.MAX_PIXELS": 64_000_000,
    "catchlight.images.formats.SIGNATURE_BYTES": 12,
    "catchlight.images.formats.bounded_reader.MAX_PARTS": 200_000,
    "catchlight.images.formats.bounded_reader.FIRST_BLOCK_BYTES": KIB,
    "catchlight.images.formats.bounded_reader.BLOCK_BYTES": 256 * KIB,
    # Archiving.
    "catchlight.archiving.bucket.MAX_REQUEST_BYTES": 1500,
    "functions.archive_images.app.MAX_MESSAGES": 5,
    "functions.archive_images.app.MAX_CONCURRENT_IMAGES": 32,
    "functions.archive_images.app.CONFIRMATION_TIMEOUT_SECONDS": 5.0,
    "functions.archive_images.app.RESERVED_SECONDS": 12,
    "catchlight.polling.intervals.RETRY_AFTER_SECONDS": (5, 15, 45),
    "catchlight.polling.intervals.MAX_ARCHIVE_TRIES": 5,
    "catchlight.polling.intervals.TIME_LEFT_DIVISOR": 4,
    "catchlight.polling.intervals.LONGEST_WAIT_SECONDS": 60,
    "catchlight.polling.intervals.WAITS_OF_EQUAL_LENGTH": 60,
    "catchlight.polling.intervals.WAIT_GROWTH": 61 / 60,
    "catchlight.polling.intervals.UNREADABLE_TASK_LIFETIME": timedelta(days=1),
    # Repairs.
    "catchlight.recovery.reconcile.MAX_STARTING_TIME": timedelta(hours=1),
    "catchlight.tasks.restarts.POLLING_SLACK": timedelta(hours=1),
    "catchlight.recovery.reconcile.MAX_ARCHIVING_TIME": timedelta(hours=1),
    "catchlight.recovery.reconcile.MAX_CONFIRMING_TIME": timedelta(hours=1),
    "catchlight.recovery.reconcile.FAILURES_SEARCHED": timedelta(days=14),
    "catchlight.recovery.reconcile.REPEAT_ARCHIVING_AFTER": timedelta(days=1),
    "catchlight.recovery.reconcile.MAX_TASKS_PER_RUN": 2000,
    "functions.reconcile_tasks.app.RESERVED_SECONDS": 70,
    # Task events.
    "catchlight.events.MAX_DETAIL_BYTES": 25_000,
    "catchlight.events.MAX_REASON_BYTES": 300,
    "catchlight.aws.outages.PAUSES_SECONDS": (1, 2, 4, 8, 15),
    "functions.publish_events.app.RESERVED_SECONDS": 10,
    # The tasks API.
    "catchlight.tasks.concurrent_writes.MAX_CONCURRENT_WRITES": 10,
    "catchlight.api.request_models.MAX_TASKS_PER_REGISTRATION": 100,
    "catchlight.api.request_models.MAX_TASKS_PER_PAGE": 100,
    "catchlight.api.request_models.DEFAULT_TASKS_PER_PAGE": 50,
    "catchlight.api.request_models.MAX_WAIT_SECONDS": 20,
    "catchlight.api.request_models.MIN_LINK_SECONDS": 60,
    "catchlight.api.request_models.MAX_LINK_SECONDS": 3600,
    "catchlight.api.request_models.DEFAULT_LINK_SECONDS": 900,
    "catchlight.api.request_models.MAX_CURSOR_LENGTH": 4096,
    "catchlight.api.requests.MAX_BODY_BYTES": 256 * KIB,
    "catchlight.api.requests.MAX_ERRORS": 10,
    "catchlight.api.requests.MAX_FIELD_PATH_LENGTH": 100,
    "catchlight.api.queries.EXAMINED_IN_FEED": 500,
    "catchlight.api.queries.EXAMINED_BY_STATUS": 100,
    "catchlight.api.queries.WAIT_STEPS": (0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
    "catchlight.api.tasks_api.NOT_ARCHIVED_RETRY_SECONDS": 5,
    "functions.serve_tasks_api.app.RESERVED_SECONDS": 3,
    "catchlight.api.problems.RETRY_AFTER_SECONDS": 2,
    # Submissions.
    "catchlight.api.idempotency.IN_PROGRESS_TIME": timedelta(seconds=35),
    "catchlight.api.idempotency.MAX_WRITES": 3,
    "catchlight.api.idempotency.PAUSE_SECONDS": 0.05,
    "catchlight.api.idempotency.MAX_WRITING_SECONDS": 1.0,
    "catchlight.api.submission_client.MAX_ANSWER_BYTES": 64 * KIB,
    "catchlight.api.submission_client.ANSWER_TIMEOUT_SECONDS": 18.0,
    "catchlight.api.submission_problems.RETRY_AFTER_SECONDS": 10,
    "catchlight.api.submission_problems.MAX_RETRY_AFTER_SECONDS": 300,
    "catchlight.api.submission_problems.IN_PROGRESS_SECONDS": 3,
    "catchlight.api.submissions.MAX_DEPTH": 8,
    "catchlight.api.submissions.MAX_REPLY_LENGTH": 4000,
    # Writes that conflict with a transaction.
    "catchlight.aws.clients.MAX_CONFLICTS": 3,
    "catchlight.aws.clients.CONFLICT_PAUSE_SECONDS": 0.05,
}

CONFIGS: dict[str, dict[str, object]] = {
    "catchlight.aws.clients.BASE_CONFIG": {"user_agent": "catchlight", "parameter_validation": False},
    "catchlight.aws.clients.CLIENT_CONFIG": {
        "connect_timeout": 1,
        "read_timeout": 2,
        "retries": {"total_max_attempts": 3, "mode": "standard"},
        "tcp_keepalive": True,
    },
    "catchlight.archiving.bucket.S3_CONFIG": {
        "connect_timeout": 1,
        "read_timeout": 4,
        "retries": {"total_max_attempts": 2, "mode": "standard"},
        "tcp_keepalive": True,
        "max_pool_connections": 50,
        "s3": {"payload_signing_enabled": False},
        "request_checksum_calculation": "when_required",
    },
    "catchlight.api.presigned_urls.S3_CONFIG": {
        "signature_version": "s3v4",
        "s3": {"us_east_1_regional_endpoint": "regional", "addressing_style": "virtual"},
    },
}


def _constant(name: str) -> object:
    module, _, constant = name.rpartition(".")
    return getattr(import_module(module), constant)


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_has_this_value(name: str) -> None:
    assert _constant(name) == LIMITS[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_client_config_has_these_values(name: str) -> None:
    config = _constant(name)

    assert {option: getattr(config, option) for option in CONFIGS[name]} == CONFIGS[name]
    assert set(config._user_provided_options) == set(CONFIGS[name])  # type: ignore[attr-defined] # of botocore
