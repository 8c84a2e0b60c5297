"""Processes kept deliveries again, with the current parsers: rejected ones, or those that were accepted.

The report of a delivery that can be read now is written as ReceiveCallback would have written it, and the delivery is
removed from `rejected/`. The others stay, and so do deliveries that were accepted.
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
    outcome: str  # "applied", "duplicate", "conflict", or why it still cannot be read
    is_processed: bool


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
        provider_id: the provider of all deliveries, if the provider in their URLs was wrong.
        dry_run: yields what would happen, and writes nothing.
        removes: removes the deliveries that were processed.
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
        if report.is_hint:  # its provider may have no key: nothing of the delivery is in the table yet
            outcome_of_hint = f"{report.remark}: its task is polled"
            yield Replayed(key=key, provider=provider, task=report.task, outcome=outcome_of_hint, is_processed=False)
            continue
        if removes:
            deliveries.remove(key)
        yield Replayed(key=key, provider=provider, task=report.task, outcome=outcome, is_processed=True)
