"""Parses the fields of a provider's record besides the result: the request's parameters, times, timings and trace id.

A malformed value in them never makes an answer invalid, and none of them changes a task's status.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from catchlight.models import (
    MAX_IMAGES_PER_TASK,
    MAX_PARAMETERS_BYTES,
    MAX_PROMPT_LENGTH,
    MAX_RECORD_TEXT_LENGTH,
    MAX_TIMINGS_BYTES,
    GenerationRequest,
    ProviderRecord,
    iso,
)
from catchlight.providers.payloads import integer_or_none, text_or_none, time_or_none


def generation_request(reported: Any, *, seeds: Iterable[Any] = ()) -> GenerationRequest | None:
    """Parses the request's parameters that a provider reports, as an object or as JSON text; None if there are none.

    kie.ai's Market has most parameters one level deeper, in `input`. Malformed values are omitted, so that they never
    make a task fail.
    """
    values = _parameters(reported)
    values = {**_parameters(values.get("input")), **values}
    # The seeds of the images if they are reported: the requested seed applies to one image only.
    known_seeds = tuple(islice(_integers(seeds), MAX_IMAGES_PER_TASK)) or tuple(_integers((values.get("seed"),)))
    sizes = (text_or_none(values.get(name)) for name in ("size", "image_size", "aspectRatio", "aspect_ratio"))
    request = GenerationRequest(
        prompt=text_or_none(values.get("prompt"), MAX_PROMPT_LENGTH),
        model=text_or_none(values.get("model")),
        size=next(filter(None, sizes), None),
        seeds=known_seeds or None,
    )
    return request if request != GenerationRequest() else None


def _parameters(reported: Any) -> Mapping[str, Any]:
    if isinstance(reported, str | bytes):
        try:
            reported = json.loads(reported)
        except (ValueError, RecursionError):
            return {}
    return reported if isinstance(reported, Mapping) else {}


def _integers(values: Iterable[Any]) -> Iterator[int]:
    return (number for number in map(integer_or_none, values) if number is not None)


def provider_record(
    *, created: Any = None, completed: Any = None, trace_id: Any = None, timings: Any = None, parameters: Any = None
) -> ProviderRecord | None:
    """Returns the fields of a provider's record besides the result; None if all of them are empty.

    The arguments are the values as the provider sent them; none of them makes an answer invalid. A time that cannot be
    parsed is kept as text, a trace id that is not a string is omitted, and too long values are cut.
    """
    record = ProviderRecord(
        created_at=_moment(created),
        completed_at=_moment(completed),
        trace_id=text_or_none(trace_id),
        timings=_json_text(timings, MAX_TIMINGS_BYTES),
        parameters=_json_text(parameters, MAX_PARAMETERS_BYTES),
    )
    return record if record != ProviderRecord() else None


def _moment(value: Any) -> str | None:
    time = time_or_none(value)
    if time:
        return iso(time)
    return text_or_none(value, MAX_RECORD_TEXT_LENGTH) or _json_text(value, MAX_RECORD_TEXT_LENGTH)


def _json_text(value: Any, max_bytes: int) -> str | None:
    """Returns a string unchanged and any other value as JSON, cut to `max_bytes`; None for an empty value."""
    if value in (None, "", [], {}):
        return None
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except (RecursionError, TypeError, ValueError):
        return None
    # JSON can contain lone surrogates, which AWS services reject.
    return text.encode(errors="replace")[:max_bytes].decode(errors="ignore") or None
