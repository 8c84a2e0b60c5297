"""Reads the failed records of a batch from a function's response (ReportBatchItemFailures), as Lambda does.

https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting
"""

import json
from collections.abc import Sequence
from typing import Any

from local.lambda_.runtime_api import Outcome


def failed_identifiers(outcome: Outcome, identifiers: Sequence[str], reports_item_failures: bool) -> set[str]:
    """Returns the identifiers of a batch that failed: all if the function failed or its response is malformed."""
    everything = set(identifiers)
    if outcome.function_error:
        return everything
    if not reports_item_failures:
        return set()
    try:
        response: Any = json.loads(outcome.payload or b"null")
    except ValueError:
        return everything
    if not response:
        return set()
    if not isinstance(response, dict):
        return everything
    failures = response.get("batchItemFailures") or []
    failed = {str(item.get("itemIdentifier")) if isinstance(item, dict) else "" for item in failures}
    # An identifier that is missing, empty or not part of this batch makes the whole batch fail.
    return failed if failed <= everything else everything
