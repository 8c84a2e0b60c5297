"""What a function says of the records in its batch (ReportBatchItemFailures), read as Lambda reads it.

https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting
"""

import json
from collections.abc import Sequence
from typing import Any

from local.lambda_.runtime_api import Outcome


def failed_identifiers(outcome: Outcome, identifiers: Sequence[str], reports_item_failures: bool) -> set[str]:
    """Which of a batch's identifiers failed: all of them if the function failed or its answer makes no sense."""
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
    # An identifier that is missing, empty or not of this batch makes the whole batch a failure.
    return failed if failed <= everything else everything
