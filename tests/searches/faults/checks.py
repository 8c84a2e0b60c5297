"""Checks a task's invariants after every write to its item, and in every final state."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from boto3.dynamodb.types import TypeDeserializer

from catchlight.models import TaskStatus
from catchlight.tasks.reports import MAX_CONFLICTS
from tests.searches.faults.account import AccountState
from tests.searches.faults.provider import PICTURES, Failure, FinalReport, Success
from tests.searches.faults.scenarios import EndState

_deserialize = TypeDeserializer().deserialize


_REOPENED = {
    (TaskStatus.INCOMPLETE, TaskStatus.SUCCEEDED),
    (TaskStatus.UNCONFIRMED, TaskStatus.SUCCEEDED),
    (TaskStatus.TIMED_OUT, TaskStatus.PENDING),
}
_WITH_IMAGES = (TaskStatus.SUCCEEDED, TaskStatus.UNCONFIRMED, TaskStatus.INCOMPLETE, TaskStatus.ARCHIVED)


class Harm(StrEnum):
    """The kind of damage that a violation causes for the user who paid for the image."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Violation:
    """A violated invariant."""

    harm: Harm
    what: str


def plain(item: str | None) -> dict[str, Any]:
    """Returns an item's attributes as plain Python values; empty if there is no item."""
    return {name: _deserialize(value) for name, value in json.loads(item or "{}").items()}


def check_change(before: Mapping[str, Any], after: Mapping[str, Any], *, is_redriven: bool) -> Iterator[Violation]:
    """Yields the violations of one write to an item.

    `is_redriven`: the write is part of a redrive, which may restart a task with a final status.
    """
    status, rank = TaskStatus(after["status"]), int(after["rank"])
    if rank != status.rank:
        yield Violation(Harm.WRONG, f"{status} with rank {rank}")
    if len(after.get("conflicts", [])) > MAX_CONFLICTS:
        yield Violation(Harm.WRONG, f"more than {MAX_CONFLICTS} conflicts")
    may_have_original = "hintedAt" in after and status in (TaskStatus.PENDING, TaskStatus.TIMED_OUT)
    if (status in _WITH_IMAGES) != bool(after.get("images")) and not may_have_original:
        yield Violation(Harm.WRONG, f"{status} with images {after.get('images')}")
    results = {image["state"] for image in after.get("images", []) if image["kind"] == "result"}
    if status is TaskStatus.ARCHIVED and results != {"ARCHIVED"}:
        yield Violation(Harm.WRONG, "ARCHIVED without all results")
    if not before:
        return
    for name in ("deliveries", "conflicts"):
        if _count(after, name) < _count(before, name):
            yield Violation(Harm.LOST, f"{name} has decreased")
    if _is_correction(before, after) or _is_renewal(before, after) or _is_confirmation(before, after):
        return
    is_reopened = is_redriven and (before["status"], status) in _REOPENED
    if rank < int(before["rank"]) and not is_reopened:
        yield Violation(
            Harm.LOST,
            f"the status fell from {before['status']} to {status} without the correction of an unconfirmed report",
        )
    if status == before["status"] and (_urls(before) != _urls(after) or _reason(before) != _reason(after)):
        yield Violation(Harm.DUPLICATED, f"{status} was written again with another result")
    for was, is_now in zip(before.get("images", []), after.get("images", []), strict=False):
        # Two concurrent runs may archive the same image: both write the same values.
        if was["state"] == "ARCHIVED" and _object(was) != _object(is_now):
            yield Violation(Harm.DUPLICATED, f"{was['kind']} was ARCHIVED and was written again as {is_now['state']}")


def check_end(
    account: AccountState, end_state: EndState, acknowledged: Iterable[FinalReport], sent: int, dead_letters: int
) -> Iterator[Violation]:
    """Yields the violations of a final state.

    `acknowledged`: the callbacks answered with 200, which the item must contain; `sent`: the number of all sent
    callbacks.
    """
    item = plain(account.item)
    status = item.get("status")
    if status in (None, TaskStatus.PENDING, TaskStatus.SUCCEEDED) and status != end_state.status:
        yield Violation(Harm.LOST, f"its status stays {status}")
    elif status != end_state.status:
        yield Violation(Harm.WRONG, f"its final status is {status} instead of {end_state.status}")
    elif _reason(item) != end_state.reason and end_state.reason:
        yield Violation(Harm.WRONG, f"it failed with {_reason(item)} instead of {end_state.reason}")
    for report in acknowledged:
        if not any(_contains_report(known, report) for known in (item, *item.get("conflicts", []))):
            yield Violation(Harm.LOST, f"the item does not contain a callback that was answered with 200: {report}")
    if _count(item, "deliveries") > sent:
        yield Violation(Harm.DUPLICATED, f"{_count(item, 'deliveries')} deliveries are counted, {sent} were sent")
    if dead_letters:
        yield Violation(Harm.LOST, f"{dead_letters} messages are dead letters")
    yield from _check_images(item, end_state)
    yield from _check_objects(account, end_state)


def _contains_report(known: Mapping[str, Any], report: FinalReport) -> bool:
    """Returns whether an item or an entry of `conflicts` contains the report of a callback."""
    if isinstance(report, Success) and not any(picture.kind == "result" for picture in report.pictures):
        # If the item has the result, it has the original, too.
        names = {PICTURES[url].name for url in _urls(known)}
        return "hintedAt" in known or {picture.name for picture in report.pictures} <= names
    if isinstance(report, Failure):
        return (known.get("failure") or {}).get("code") == str(report.code)
    urls = _urls(known) or known.get("urls", [])
    return [PICTURES[url].name for url in urls] == [picture.name for picture in report.pictures]


def _check_images(item: Mapping[str, Any], end_state: EndState) -> Iterator[Violation]:
    archived = [image for image in item.get("images", []) if image["state"] == "ARCHIVED"]
    expected = [(picture.kind, picture.name, picture.sha256) for picture in end_state.pictures]
    found = [(image["kind"], _name(image), image["sha256"]) for image in archived]
    if found != expected:
        yield Violation(
            Harm.WRONG, f"the item's {len(found)} archived images are not the {len(expected)} expected ones"
        )


def _check_objects(account: AccountState, end_state: EndState) -> Iterator[Violation]:
    expected = {picture.sha256 for picture in end_state.pictures}
    quarantined = {found.key: found.sha256 for found in account.objects if found.key.startswith("quarantine/")}
    recorded = [
        quarantined.get(image.get("quarantine", {}).get("key")) for image in plain(account.item).get("images", [])
    ]
    for picture in end_state.quarantined_pictures:
        if picture.sha256 not in recorded:
            yield Violation(
                Harm.LOST, f"the bytes of {picture.name} are not in quarantine, or the item does not have their key"
            )
    # Quarantine may also have images of false callbacks that arrived while the provider did not answer.
    images = [found for found in account.objects if not found.key.startswith("quarantine/")]
    stored = [found.sha256 for found in images]
    if missing := expected - set(stored):
        yield Violation(Harm.LOST, f"{len(missing)} images are not in the bucket")
    if set(stored) - expected - {picture.sha256 for picture in end_state.optional_pictures}:
        yield Violation(Harm.WRONG, "the bucket has images that do not belong to the task")
    if len(stored) != len(set(stored)):
        yield Violation(Harm.DUPLICATED, "the bucket has an image twice")
    for found in images:
        if found.times_written > 1:
            yield Violation(Harm.DUPLICATED, f"{found.key} was written {found.times_written} times")


def _is_correction(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Returns whether the provider's status has replaced a callback's unconfirmed report."""
    was_unconfirmed = before.get("reportedBy") == "callback" and "confirmedAt" not in before
    return was_unconfirmed and after.get("reportedBy") != "callback"


def _is_confirmation(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Returns whether the provider has confirmed the result of an UNCONFIRMED task."""
    statuses = (before["status"], after["status"]) == (TaskStatus.UNCONFIRMED, TaskStatus.SUCCEEDED)
    return statuses and "confirmedAt" in after and before["images"] == after["images"]


def _is_renewal(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Returns whether only the URLs of unarchived images have changed."""
    pairs = list(zip(before.get("images", []), after.get("images", []), strict=False))
    changed = [(was, is_now) for was, is_now in pairs if was != is_now]
    return before["status"] == after["status"] and all(
        (was["state"], is_now["state"]) == ("PENDING", "PENDING") and _name(was) == _name(is_now)
        for was, is_now in changed
    )


def _object(image: Mapping[str, Any]) -> list[Any]:
    return [image.get(name) for name in ("state", "key", "bytes", "sha256", "contentType")]


def _name(image: Mapping[str, Any]) -> str:
    return PICTURES[image["url"]].name


def _count(item: Mapping[str, Any], name: str) -> int:
    value = item.get(name, 0)
    return len(value) if isinstance(value, list) else int(value)


def _urls(item: Mapping[str, Any]) -> list[str]:
    return [image["url"] for image in item.get("images", [])]


def _reason(item: Mapping[str, Any]) -> str | None:
    reason: str | None = item.get("failure", {}).get("reason")
    return reason
