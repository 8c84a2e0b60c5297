"""Submits image requests to providers: once per idempotency key, however often a caller repeats the request."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any
from uuid import uuid4

from catchlight.api import submission_problems
from catchlight.api.idempotency import IdempotencyRecord, IdempotencyState, IdempotencyStore
from catchlight.api.problems import FieldProblem, ProviderReply
from catchlight.api.request_models import IDEMPOTENCY_KEY_PATTERN, Submission
from catchlight.api.response_models import NewTask
from catchlight.api.submission_client import Reply, SubmissionClient
from catchlight.aws.secrets import TOKEN_PATTERN, ProviderKeys, Redactor, character_problem
from catchlight.errors import (
    InvalidSecretError,
    ProviderError,
    ProviderUnavailableError,
    ProviderUnreachableError,
    StoreUnavailableError,
)
from catchlight.models import iso, task_key
from catchlight.providers import PROVIDERS, Provider
from catchlight.providers.records import generation_request
from catchlight.tasks.registration import new_task

# Maximum nesting of a request. Documented requests have a few members, some of them lists of URLs or objects.
MAX_DEPTH = 8
# Providers' error bodies usually have a few hundred characters.
MAX_REPLY_LENGTH = 4000


class Submissions:
    """Submits image requests, and releases idempotency keys whose outcome is unknown.

    Every method may also raise StoreUnavailableError or SettingsError; in both cases nothing was sent.
    """

    def __init__(
        self,
        records: IdempotencyStore,
        client: SubmissionClient,
        keys: Callable[[str], ProviderKeys],
        callback_token: Callable[[], str],
        *,
        callback_base_url: str,
        now: Callable[[], datetime],
    ) -> None:
        self._records = records
        self._client = client
        self._keys = keys
        self._callback_token = callback_token
        self._callback_base_url = callback_base_url
        self._now = now

    def submit(self, submission: Submission, key: str) -> NewTask:
        """Sends a request to its provider and registers the task. Returns the first task if the key was used before.

        Raises:
            APIError: no task was created, or the outcome is unknown. The problem type distinguishes whether images may
                have been generated.
        """
        provider = PROVIDERS[submission.provider]
        path = _checked_path(provider, submission)
        # All steps that can fail before the request is sent come before the reservation of the key.
        api_key, token = self._secrets(provider.id)
        record = IdempotencyRecord(
            key=key,
            provider=provider.id,
            fingerprint=_fingerprint(submission),
            attempt=uuid4().hex,
            asked_at=iso(self._now()),
        )
        holder = self._records.reserve(record)
        if holder.attempt != record.attempt:
            return self._earlier_outcome(holder, record.fingerprint)
        callback_url = f"{self._callback_base_url}/callbacks/{provider.id}/{token}"
        body = {**submission.request, provider.callback_url_field: callback_url}
        redactor = Redactor((api_key, token))
        task_id = self._send(provider, path, body, record, api_key=api_key, redactor=redactor)
        self._register(record, task_id, redactor.redact(json.dumps(submission.request).encode()), submission)
        return _submitted(record.provider, task_id)

    def release(self, key: str) -> None:
        """Releases a key whose submission has an unknown outcome: the next request with this key is sent.

        Raises:
            APIError: the key has no submission, or its request is in progress or has created a task.
        """
        # Malformed keys are not looked up: DynamoDB refuses a key that is longer than its limit.
        record = self._records.find(key) if re.fullmatch(IDEMPOTENCY_KEY_PATTERN, key) else None
        if record is None or record.state is IdempotencyState.RELEASED:
            raise submission_problems.no_such_submission()
        if record.state is IdempotencyState.COMPLETED:
            raise submission_problems.known_outcome(record)
        if record.is_in_progress(self._now()) or not self._records.release(record):
            raise submission_problems.in_progress(record)

    def _secrets(self, provider_id: str) -> tuple[str, str]:
        """Returns the provider's API key and the callback token.

        Raises:
            APIError: one of them is missing or cannot be used.
        """
        try:
            keys = self._keys(provider_id)
            api_key = keys.usable_api_key
        except InvalidSecretError as exc:
            raise submission_problems.unusable_secret(str(exc)) from exc
        if api_key is None:
            raise submission_problems.no_api_key(provider_id, keys.missing_api_key)
        token = self._callback_token()
        if not TOKEN_PATTERN.fullmatch(token):
            problem = character_problem(token) or "needs 32 to 128 letters, digits, - and _"
            raise submission_problems.unusable_secret(f"the callback token {problem}: no callback URL can contain it")
        return api_key, token

    def _earlier_outcome(self, record: IdempotencyRecord, fingerprint: str) -> NewTask:
        """Returns the task of the earlier request with the same key.

        Raises:
            APIError: the earlier request was a different one, is in progress, or has an unknown outcome.
        """
        if record.fingerprint != fingerprint:
            raise submission_problems.key_used(record)
        if record.state is IdempotencyState.COMPLETED and record.task_id:
            return _submitted(record.provider, record.task_id)
        if record.is_in_progress(self._now()):
            raise submission_problems.in_progress(record)
        raise submission_problems.unknown_outcome(record, record.reason or "the first request ended without a result")

    def _send(
        self,
        provider: Provider,
        path: str,
        body: Mapping[str, Any],
        record: IdempotencyRecord,
        *,
        api_key: str,
        redactor: Redactor,
    ) -> str:
        """Sends the request and returns the id of the task that the provider created.

        Raises:
            APIError: the provider refused the request, or the outcome is unknown.
        """
        reply = None
        try:
            reply = self._client.send(provider, path, body, api_key=api_key)
            return provider.parse_submission(reply.status, reply.json)
        except ProviderError as exc:
            shown = _reply_for_caller(reply, redactor) if reply else None
            if isinstance(exc, ProviderUnavailableError) and not isinstance(exc, ProviderUnreachableError):
                problem = submission_problems.unknown_outcome(record, str(exc), shown)
                record_outcome: Callable[[], Any] = partial(self._records.record_unknown_outcome, record, str(exc))
            else:
                problem = submission_problems.refused(exc, shown, reply.retry_after_seconds if reply else None)
                record_outcome = partial(self._records.release, record)
            try:
                record_outcome()
            except StoreUnavailableError as store_error:
                # The record stays IN_PROGRESS. Its outcome will count as unknown, even if the provider refused the
                # request: so the request is never sent twice.
                problem.store_error = store_error
            raise problem from exc

    def _register(self, record: IdempotencyRecord, task_id: str, request: bytes, submission: Submission) -> None:
        task = new_task(
            record.provider,
            task_id,
            now=self._now(),
            request=generation_request(request),
            idempotency_key=record.key,
            metadata=submission.metadata,
            ref=submission.ref,
        )
        try:
            self._records.complete(record, task_id, task)
        except StoreUnavailableError as exc:
            raise submission_problems.not_registered(record, task_id) from exc


def _submitted(provider_id: str, task_id: str) -> NewTask:
    return NewTask(task=task_key(provider_id, task_id), provider=provider_id, task_id=task_id, outcome="submitted")


def _fingerprint(submission: Submission) -> str:
    # `sort_keys`: the order of members is irrelevant. JSON's default ASCII escapes can encode lone surrogates, too.
    # Metadata and reference do not change the images: they may differ in a repeated request.
    text = json.dumps(submission.model_dump(exclude={"metadata", "ref"}), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _checked_path(provider: Provider, submission: Submission) -> str:
    """Validates a submission and returns the path of its provider endpoint.

    Raises:
        APIError: the endpoint is unknown, or the request has invalid fields.
    """
    endpoint = next(iter(provider.submit_paths)) if submission.endpoint is None else submission.endpoint
    errors = list(_problems_of(submission.request))
    if endpoint not in provider.submit_paths:
        known = ", ".join(provider.submit_paths)
        errors.append(FieldProblem(at="endpoint", detail=f"{provider.id} has no such endpoint; known: {known}"))
    if errors:
        raise submission_problems.invalid(*errors)
    return provider.submit_paths[endpoint]


def _problems_of(request: Mapping[str, Any]) -> Iterator[FieldProblem]:
    for name in request:
        if name.lower().replace("_", "") == "callbackurl":
            yield FieldProblem(at=f"request.{name}", detail="is added by the stack: a request must not contain it")
    if _depth(request) > MAX_DEPTH:
        yield FieldProblem(at="request", detail=f"should not be nested deeper than {MAX_DEPTH} levels")
    elif problem := _encoding_problem(request):
        yield FieldProblem(at="request", detail=problem)


def _encoding_problem(value: Any) -> str | None:
    """Returns why a value cannot be encoded as JSON in UTF-8; None if it can."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return "contains half a character (a lone surrogate)"
    except ValueError:  # 1e999 was decoded as infinity
        return "contains a number that is too large"
    return None


def _depth(value: Any) -> int:
    """Counts the nested levels of objects and lists, without recursion, so that no nesting is too deep for Python."""
    depth, level = 0, [value]
    while level:
        level = [
            part
            for outer in level
            if isinstance(outer, dict | list)
            for part in (outer.values() if isinstance(outer, dict) else outer)
        ]
        depth += bool(level)
    return depth


def _reply_for_caller(reply: Reply, redactor: Redactor) -> ProviderReply:
    """Returns a provider's response without secrets: error messages may repeat parts of the request."""
    text = redactor.redact_text(reply.text)
    body = Reply(reply.status, text).json if len(text) <= MAX_REPLY_LENGTH else None
    is_shown_as_json = body is not None and _depth(body) <= MAX_DEPTH
    return ProviderReply(status=reply.status, body=body if is_shown_as_json else text[:MAX_REPLY_LENGTH])
