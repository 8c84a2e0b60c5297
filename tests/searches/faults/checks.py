"""Checks a task's invariants: after every change of its item, and when nothing more can happen to it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from boto3.dynamodb.types import TypeDeserializer

from catchlight.models import TaskStatus
from catchlight.tasks.reports import MAX_CONFLICTS
from tests.searches.faults.account import Holdings
from tests.searches.faults.provider import PICTURES, Failure, Success, Word
from tests.searches.faults.scenarios import Ending

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
    DOUBLE = "double"
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

    With `is_redriven` the write is an operator's, who may reopen a task that was given up.
    """
    status, rank = TaskStatus(after["status"]), int(after["rank"])
    if rank != status.rank:
        yield Violation(Harm.WRONG, f"{status} with rank {rank}")
    if len(after.get("conflicts", [])) > MAX_CONFLICTS:
        yield Violation(Harm.WRONG, "evidence without bound")
    may_have_original = "hintedAt" in after and status in (TaskStatus.PENDING, TaskStatus.TIMED_OUT)
    if (status in _WITH_IMAGES) != bool(after.get("images")) and not may_have_original:
        yield Violation(Harm.WRONG, f"{status} with images {after.get('images')}")
    results = {image["state"] for image in after.get("images", []) if image["kind"] == "result"}
    if status is TaskStatus.ARCHIVED and results != {"ARCHIVED"}:
        yield Violation(Harm.WRONG, "ARCHIVED without all results")
    if not before:
        return
    for counted in ("deliveries", "conflicts"):
        if _count(after, counted) < _count(before, counted):
            yield Violation(Harm.LOST, f"{counted} has become less")
    if _is_correction(before, after) or _is_renewal(before, after) or _is_confirmation(before, after):
        return
    is_reopened = is_redriven and (before["status"], status) in _REOPENED
    if rank < int(before["rank"]) and not is_reopened:
        yield Violation(
            Harm.LOST, f"{before['status']} has become {status}, although no unconfirmed report was corrected"
        )
    if status == before["status"] and (_urls(before) != _urls(after) or _reason(before) != _reason(after)):
        yield Violation(Harm.DOUBLE, f"{status} once more, with another result")
    for was, is_now in zip(before.get("images", []), after.get("images", []), strict=False):
        # Two runs may archive the same image at once: both store the same facts about its object.
        if was["state"] == "ARCHIVED" and _object(was) != _object(is_now):
            yield Violation(Harm.DOUBLE, f"{was['kind']} was ARCHIVED and is settled again: {is_now['state']}")


def check_end(
    holdings: Holdings, ending: Ending, acknowledged: Iterable[Word], sent: int, dead_letters: int
) -> Iterator[Violation]:
    """Yields the violations of a task to which nothing more can happen.

    `acknowledged`: the callbacks answered with 200, which the item must contain; `sent`: the number of all sent
    callbacks.
    """
    item = plain(holdings.item)
    status = item.get("status")
    if status in (None, TaskStatus.PENDING, TaskStatus.SUCCEEDED) and status != ending.status:
        yield Violation(Harm.LOST, f"it stays {status}")
    elif status != ending.status:
        yield Violation(Harm.WRONG, f"it ends {status} instead of {ending.status}")
    elif _reason(item) != ending.reason and ending.reason:
        yield Violation(Harm.WRONG, f"it failed with {_reason(item)} instead of {ending.reason}")
    for word in acknowledged:
        if not any(_says(known, word) for known in (item, *item.get("conflicts", []))):
            yield Violation(Harm.LOST, f"nothing is known of a callback that was answered 200: {word}")
    if _count(item, "deliveries") > sent:
        yield Violation(Harm.DOUBLE, f"{_count(item, 'deliveries')} deliveries of {sent} that were sent")
    if dead_letters:
        yield Violation(Harm.LOST, f"{dead_letters} messages are among the dead letters")
    yield from _check_images(item, ending)
    yield from _check_objects(holdings, ending)


def _says(known: Mapping[str, Any], word: Word) -> bool:
    """Returns whether an item or a conflict entry has the result of a callback."""
    if isinstance(word, Success) and not any(picture.kind == "result" for picture in word.pictures):
        # With a result, the item has the original, too: the callback adds nothing.
        names = {PICTURES[url].name for url in _urls(known)}
        return "hintedAt" in known or {picture.name for picture in word.pictures} <= names
    if isinstance(word, Failure):
        return (known.get("failure") or {}).get("code") == str(word.code)
    urls = _urls(known) or known.get("urls", [])
    return [PICTURES[url].name for url in urls] == [picture.name for picture in word.pictures]


def _check_images(item: Mapping[str, Any], ending: Ending) -> Iterator[Violation]:
    archived = [image for image in item.get("images", []) if image["state"] == "ARCHIVED"]
    expected = [(picture.kind, picture.name, picture.sha256) for picture in ending.pictures]
    found = [(image["kind"], _name(image), image["sha256"]) for image in archived]
    if found != expected:
        yield Violation(Harm.WRONG, f"the item has {len(found)} images archived, not the {len(expected)} true ones")


def _check_objects(holdings: Holdings, ending: Ending) -> Iterator[Violation]:
    true = {picture.sha256 for picture in ending.pictures}
    kept = {found.key: found.sha256 for found in holdings.objects if found.key.startswith("quarantine/")}
    named = [kept.get(image.get("quarantine", {}).get("key")) for image in plain(holdings.item).get("images", [])]
    for picture in ending.kept_pictures:
        if picture.sha256 not in named:
            yield Violation(Harm.LOST, f"the bytes of {picture.name} are not kept, or the item does not say where")
    # What a callback named while its provider did not answer is in quarantine, true or not.
    images = [found for found in holdings.objects if not found.key.startswith("quarantine/")]
    stored = [found.sha256 for found in images]
    if missing := true - set(stored):
        yield Violation(Harm.LOST, f"{len(missing)} images are not in the bucket")
    if set(stored) - true - {picture.sha256 for picture in ending.unknown_pictures}:
        yield Violation(Harm.WRONG, "there are images in the bucket that are none of the task's")
    if len(stored) != len(set(stored)):
        yield Violation(Harm.DOUBLE, "an image is in the bucket twice")
    for found in images:
        if found.times_written > 1:
            yield Violation(Harm.DOUBLE, f"{found.key} was written {found.times_written} times")


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
