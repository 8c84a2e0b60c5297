"""Processes kept deliveries again with the current parsers, rejected ones or accepted ones.

The report of a delivery that can be read now is written to the tasks table in the same way as by ReceiveCallback, and
a rejected delivery is then removed from `rejected/`. Deliveries that still cannot be read and accepted ones stay.
"""

from collections.abc import Iterator

from catchlight.aws.secrets import Redactor
from catchlight.errors import RequestError
from catchlight.models import Model
from catchlight.providers import find_provider
from catchlight.providers.payloads import decode_json
from catchlight.recovery.deliveries import DeliveryStore
from catchlight.tasks.reports import Reports


class Replayed(Model):
    """The outcome for one delivery."""

    key: str
    provider: str
    task: str | None
    outcome: str  # "applied", "duplicate" or "conflict"; in a dry run the status; else why it was not processed
    is_processed: bool  # False in a dry run


def replay(
    deliveries: DeliveryStore,
    reports: Reports,
    *,
    provider_id: str | None = None,
    dry_run: bool = False,
    removes: bool = True,
) -> Iterator[Replayed]:
    """Parses every kept delivery again and records its report.

    Args:
        deliveries: the kept deliveries in the stack's bucket.
        reports: writes to the stack's tasks table.
        provider_id: the provider of all deliveries, in place of the provider in their URLs.
        dry_run: yields the status that each report would have, and writes nothing.
        removes: whether deliveries are removed when they were processed.
    """
    for key, delivery in deliveries:
        provider = provider_id or delivery.provider_id
        try:
            # Deliveries that earlier versions stored contain their callback URL.
            body = decode_json(Redactor().redact(delivery.body))
            report = find_provider(provider).parse_callback(body, received_at=delivery.received_at)
        except RequestError as exc:
            yield Replayed(key=key, provider=provider, task=None, outcome=str(exc), is_processed=False)
            continue
        if dry_run:
            outcome = f"would report {report.status}"
            yield Replayed(key=key, provider=provider, task=report.task, outcome=outcome, is_processed=False)
            continue
        outcome = reports.record(report).outcome
        # The delivery of a hint stays: the table has no result yet, and polling needs an API key to find one.
        if report.is_hint:
            outcome_of_hint = f"{report.remark}: its task is polled"
            yield Replayed(key=key, provider=provider, task=report.task, outcome=outcome_of_hint, is_processed=False)
            continue
        if removes:
            deliveries.remove(key)
        yield Replayed(key=key, provider=provider, task=report.task, outcome=outcome, is_processed=True)
