"""The limits themselves. Tests of what happens at a limit take it from the code; here each stands as it was decided.

A change of one of these changes a promise, a cost or a safety margin: the comment beside each constant says which.
"""

from datetime import timedelta
from importlib import import_module

import pytest

KIB, MIB = 1024, 1024 * 1024

LIMITS: dict[str, object] = {
    # What comes in.
    "functions.receive_callback.app.MAX_BODY_BYTES": 64 * KIB,
    "image_tasks.models.MAX_IMAGES_PER_TASK": 32,
    "image_tasks.models.MAX_URL_LENGTH": 2048,
    "image_tasks.models.MAX_MESSAGE_LENGTH": 500,
    "image_tasks.models.MAX_PROMPT_LENGTH": 8000,
    "image_tasks.providers.wire.MAX_CODE_LENGTH": 64,
    "image_tasks.providers.wire.MAX_INTEGER_DIGITS": 15,
    "image_tasks.providers.wire.MAX_EPOCH_SECONDS": 100_000_000_000,
    "image_tasks.verification.SIGNATURE_TOLERANCE": timedelta(minutes=5),
    "image_tasks.tasks_table.MAX_CONFLICTS": 10,
    "image_tasks.tasks_table.MAX_URLS_PER_CONFLICT": 4,
    # What AWS takes in one call.
    "image_tasks.tasks_table.MAX_KEYS_PER_GET": 100,
    "image_tasks.follow_ups.MAX_MESSAGES_PER_CALL": 10,
    "functions.dispatch_changes.app.MAX_MESSAGES_PER_CALL": 10,
    "functions.publish_events.app.MAX_EVENTS_PER_CALL": 10,
    "image_tasks.desk.task_queries.MAX_KEY_BYTES": 2048,
    "image_tasks.desk.task_answers.MAX_PAGE_BYTES": 4 * MIB,
    # Secrets.
    "image_tasks.credentials.CACHE_SECONDS": 300,
    "image_tasks.credentials.RECHECK_SECONDS": 30,
    # Polling.
    "image_tasks.models.MAX_TASKS_PER_EXECUTION": 50,
    "image_tasks.polling.BUSY_FACTOR": 4,
    "image_tasks.polling.MAX_BUSY_WAIT_SECONDS": 300,
    "image_tasks.polling.MAX_CONCURRENT_WRITES": 10,
    "image_tasks.provider_client.FIRST_REQUESTS": 10,
    "image_tasks.provider_client.REQUEST_TIMEOUT_SECONDS": 10.0,
    "image_tasks.provider_client.CONNECT_TIMEOUT_SECONDS": 3.0,
    "image_tasks.provider_client.MAX_ANSWER_BYTES": 4 * MIB,
    "functions.poll_tasks.app.RESERVED_SECONDS": 20,
    # Images.
    "image_tasks.image_door.HTTPS_PORT": 443,
    "image_tasks.image_door.MAX_HOST_NAME_LENGTH": 253,
    "image_tasks.image_connections.MAX_RESOLVING_THREADS": 64,
    "image_tasks.image_connections.KEPT_SECONDS": 15.0,
    "image_tasks.image_fetching.FETCH_DEADLINE_SECONDS": 7.5,
    "image_tasks.incoming_image.MAX_IMAGE_BYTES": 25 * MIB,
    "image_tasks.incoming_image.SPOOL_BYTES": MIB,
    "image_tasks.incoming_image.FILE_BUFFER_BYTES": 256 * KIB,
    "image_tasks.incoming_image.BLOCK_BYTES": 64 * KIB,
    "image_tasks.incoming_image.LEAST_BLOCK_BYTES": 8 * KIB,
    "image_tasks.image_formats.MAX_PIXELS": 64_000_000,
    "image_tasks.image_formats.SIGNATURE_BYTES": 12,
    "image_tasks.image_formats.parts.MAX_PARTS": 200_000,
    "image_tasks.image_formats.parts.FIRST_BLOCK_BYTES": KIB,
    "image_tasks.image_formats.parts.BLOCK_BYTES": 256 * KIB,
    # Archiving.
    "functions.archive_images.app.MAX_MESSAGES": 5,
    "functions.archive_images.app.MAX_CONCURRENT_IMAGES": 32,
    "functions.archive_images.app.CONFIRMATION_TIMEOUT_SECONDS": 5.0,
    "functions.archive_images.app.RESERVED_SECONDS": 12,
    "image_tasks.deadlines.RETRY_AFTER_SECONDS": (5, 15, 45, 900),
    "image_tasks.deadlines.MAX_ARCHIVE_TRIES": 5,
    "image_tasks.deadlines.MAX_SHARE_OF_TIME_LEFT": 4,
    "image_tasks.deadlines.RETRY_WITHOUT_DEADLINE_SECONDS": 45,
    # Repairs.
    "image_tasks.reconciliation.POLLING_SLACK": timedelta(hours=1),
    "image_tasks.reconciliation.ARCHIVING_TAKES_AT_MOST": timedelta(hours=1),
    "image_tasks.reconciliation.REPEAT_ARCHIVING_AFTER": timedelta(days=1),
    "image_tasks.reconciliation.MAX_TASKS_PER_RUN": 2000,
    "functions.reconcile_tasks.app.RESERVED_SECONDS": 70,
    # Task events.
    "image_tasks.task_events.MAX_DETAIL_BYTES": 20_000,
    "image_tasks.task_events.MAX_REASON_BYTES": 400,
    "functions.publish_events.app.PAUSES_SECONDS": (1, 2, 4, 8, 15),
    "functions.publish_events.app.RESERVED_SECONDS": 10,
    # The tasks API.
    "image_tasks.registration.MAX_CONCURRENT_WRITES": 10,
    "image_tasks.desk.messages.MAX_TASKS_PER_REGISTRATION": 100,
    "image_tasks.desk.messages.MAX_TASKS_PER_PAGE": 100,
    "image_tasks.desk.messages.DEFAULT_TASKS_PER_PAGE": 50,
    "image_tasks.desk.messages.MAX_WAIT_SECONDS": 20,
    "image_tasks.desk.messages.MIN_LINK_SECONDS": 60,
    "image_tasks.desk.messages.MAX_LINK_SECONDS": 3600,
    "image_tasks.desk.messages.DEFAULT_LINK_SECONDS": 900,
    "image_tasks.desk.messages.MAX_CURSOR_LENGTH": 4096,
    "image_tasks.desk.requests.MAX_BODY_BYTES": 256 * KIB,
    "image_tasks.desk.requests.MAX_ERRORS": 10,
    "image_tasks.desk.requests.MAX_PLACE_LENGTH": 100,
    "image_tasks.desk.task_queries.EXAMINED_IN_FEED": 500,
    "image_tasks.desk.task_queries.EXAMINED_BY_STATUS": 100,
    "image_tasks.desk.task_queries.WAIT_STEPS": (0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
    "image_tasks.desk.answer_desk.ARCHIVED_SOON_SECONDS": 5,
    "functions.answer_requests.app.RESERVED_SECONDS": 3,
    "functions.answer_requests.app.RETRY_AFTER_SECONDS": 2,
    # Submissions.
    "image_tasks.desk.submission_claims.ASKING_TIME": timedelta(seconds=35),
    "image_tasks.desk.submission_claims.MAX_WRITES": 3,
    "image_tasks.desk.submission_claims.PAUSE_SECONDS": 0.05,
    "image_tasks.desk.submission_claims.MAX_WRITING_SECONDS": 1.0,
    "image_tasks.desk.submission_client.MAX_ANSWER_BYTES": 64 * KIB,
    "image_tasks.desk.submission_client.ANSWER_TIMEOUT_SECONDS": 18.0,
    "image_tasks.desk.submission_problems.RETRY_AFTER_SECONDS": 10,
    "image_tasks.desk.submission_problems.MAX_RETRY_AFTER_SECONDS": 300,
    "image_tasks.desk.submission_problems.IN_PROGRESS_SECONDS": 3,
    "image_tasks.desk.submissions.MAX_DEPTH": 8,
    "image_tasks.desk.submissions.MAX_REPLY_LENGTH": 4000,
    # Writes that meet a transaction.
    "image_tasks.aws_clients.MAX_CONFLICTS": 3,
    "image_tasks.aws_clients.CONFLICT_PAUSE_SECONDS": 0.05,
}

CONFIGS: dict[str, dict[str, object]] = {
    "image_tasks.aws_clients.QUICK": {"user_agent": "catchlight", "parameter_validation": False},
    "image_tasks.aws_clients.CLIENT_CONFIG": {
        "connect_timeout": 1,
        "read_timeout": 2,
        "retries": {"total_max_attempts": 3, "mode": "standard"},
        "tcp_keepalive": True,
    },
    "image_tasks.image_bucket.S3_CONFIG": {
        "connect_timeout": 1,
        "read_timeout": 4,
        "retries": {"total_max_attempts": 2, "mode": "standard"},
        "tcp_keepalive": True,
        "max_pool_connections": 50,
        "s3": {"payload_signing_enabled": False},
        "request_checksum_calculation": "when_required",
    },
    "image_tasks.desk.presigned_links.S3_CONFIG": {
        "signature_version": "s3v4",
        "s3": {"us_east_1_regional_endpoint": "regional", "addressing_style": "virtual"},
    },
}


def _constant(name: str) -> object:
    module, _, constant = name.rpartition(".")
    return getattr(import_module(module), constant)


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_as_it_was_decided(name: str) -> None:
    assert _constant(name) == LIMITS[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_client_waits_and_tries_as_it_was_decided(name: str) -> None:
    config = _constant(name)

    assert {option: getattr(config, option) for option in CONFIGS[name]} == CONFIGS[name]
    assert set(config._user_provided_options) == set(CONFIGS[name])  # type: ignore[attr-defined] # of botocore
