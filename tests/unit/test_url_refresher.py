"""UrlRefresher: which images get a fresh URL, and which URLs are written to the table."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catchlight.archiving.url_refresher import UrlRefresher
from catchlight.errors import ProviderBusyError, UnconfirmedError
from catchlight.models import Image, ImageKind, ImageState, Reporter, TaskReport, TaskStatus
from catchlight.tasks.task import Task

THEN = datetime(2026, 1, 31, 11, tzinfo=UTC)
NOW = THEN + timedelta(hours=1)
ORIGIN, RESULT = ImageKind.ORIGIN, ImageKind.RESULT


def image(name: str, kind: ImageKind = RESULT, state: ImageState = ImageState.PENDING) -> Image:
    return Image(kind=kind, url=f"https://h.example/{name}", expires_at=THEN, state=state)


def answer(*images: Image, status: TaskStatus = TaskStatus.SUCCEEDED) -> TaskReport:
    return TaskReport(
        provider="flux-kontext",
        task_id="t1",
        status=status,
        reported_by=Reporter.POLL,
        reported_at=NOW,
        images=images,
    )


class Harness:
    """A table that records renewed URLs, and a provider that reports `reported`, or raises it."""

    def __init__(self, reported: TaskReport | Exception | None, *, is_unchanged: bool = True) -> None:
        self.reported = reported
        self.is_unchanged = is_unchanged
        self.download_urls: dict[str, str] = {}
        self.renewed: list[tuple[Mapping[int, Image], datetime]] = []

    def request_status(self, key: str) -> TaskReport | None:
        assert key == "flux-kontext#t1"
        if isinstance(self.reported, Exception):
            raise self.reported
        return self.reported

    def download_url(self, key: str, url: str) -> tuple[str, datetime] | None:
        assert key == "flux-kontext#t1"
        if url == "https://h.example/o":
            raise ProviderBusyError("busy")
        return (self.download_urls[url], NOW + timedelta(minutes=20)) if url in self.download_urls else None

    def replace(self, task: Task, images: Mapping[int, Image], *, now: datetime) -> bool:
        self.renewed.append((images, now))
        return self.is_unchanged

    def urls(self) -> UrlRefresher:
        parts: Any = self
        return UrlRefresher(parts, parts)


def a_task(*images: Image) -> Task:
    return Task(task="flux-kontext#t1", status=TaskStatus.INCOMPLETE, rank=40, images=images)


KNOWN = a_task(image("o", ORIGIN), image("a"), image("b"))
ALL_NEW = answer(image("o2", ORIGIN), image("a2"), image("b2"))

CASES: list[tuple[Task, TaskReport | None, set[int], dict[int, str]]] = [
    (KNOWN, ALL_NEW, {0, 1, 2}, {0: "o2", 1: "a2", 2: "b2"}),
    (KNOWN, ALL_NEW, {1}, {1: "a2"}),
    (KNOWN, ALL_NEW, set(), {}),
    (KNOWN, answer(image("a2"), image("b2")), {0, 1, 2}, {1: "a2", 2: "b2"}),
    (KNOWN, answer(image("o", ORIGIN), image("a"), image("b2")), {0, 1, 2}, {2: "b2"}),
    (KNOWN, answer(image("a2"), image("b"), image("o2", ORIGIN)), {0, 1, 2}, {0: "o2", 1: "a2"}),
    (KNOWN, None, {0, 1, 2}, {}),
    (KNOWN, answer(status=TaskStatus.PENDING), {0, 1, 2}, {}),
    (a_task(image("a", state=ImageState.ARCHIVED)), answer(image("a2")), {0}, {}),
    (a_task(image("a", state=ImageState.EXPIRED)), answer(image("a2")), {0}, {0: "a2"}),
    (a_task(image("a", state=ImageState.REJECTED)), answer(image("a2")), {0}, {0: "a2"}),
]


@pytest.mark.parametrize(("task", "reported", "stale", "fresh"), CASES)
def test_a_stale_image_gets_the_providers_url_for_the_same_kind_and_index(
    task: Task, reported: TaskReport | None, stale: set[int], fresh: dict[int, str]
) -> None:
    harness = Harness(reported)

    found = harness.urls().find(task, stale)

    assert {index: image.url for index, image in found.items()} == {
        index: f"https://h.example/{name}" for index, name in fresh.items()
    }
    assert all(image.state is ImageState.PENDING and image.reason is None for image in found.values())
    assert harness.renewed == []

    renewed = harness.urls().renew(task, stale)

    assert harness.renewed == ([(found, NOW)] if found else [])
    assert renewed == (task.with_images(found, now=NOW) if found else task)


def test_the_lifetime_of_a_fresh_url_starts_with_the_providers_response() -> None:
    found = Harness(ALL_NEW).urls().find(KNOWN, {0, 1})

    assert [image.expires_at - NOW for image in found.values()] == [timedelta(minutes=10), timedelta(days=14)]


def test_a_download_url_is_written_with_its_own_lifetime() -> None:
    task = a_task(image("o", ORIGIN), image("a"))
    harness = Harness(None)
    harness.download_urls = {"https://h.example/a": "https://h.example/a3"}

    renewed = harness.urls().request_download_urls(task, [0, 1], now=NOW)

    assert [each.url for each in renewed.images] == ["https://h.example/o", "https://h.example/a3"]
    assert renewed.images[1].expires_at == NOW + timedelta(minutes=20)
    assert harness.renewed == [({1: renewed.images[1]}, NOW)]


def test_if_the_provider_returns_no_download_url_nothing_is_written() -> None:
    harness = Harness(None)
    assert harness.urls().request_download_urls(KNOWN, [0, 1], now=NOW) == KNOWN
    assert harness.renewed == []


def test_a_concurrent_change_makes_the_download_url_be_requested_again() -> None:
    harness = Harness(None, is_unchanged=False)
    harness.download_urls = {"https://h.example/a": "https://h.example/a3"}
    with pytest.raises(UnconfirmedError, match="changed during the request to its provider"):
        harness.urls().request_download_urls(KNOWN, [1], now=NOW)


def test_a_concurrent_change_makes_the_fresh_urls_be_requested_again() -> None:
    with pytest.raises(UnconfirmedError, match="changed during the request to its provider"):
        Harness(ALL_NEW, is_unchanged=False).urls().renew(KNOWN, {1})


def test_errors_of_the_provider_are_passed_on() -> None:
    with pytest.raises(ProviderBusyError):
        Harness(ProviderBusyError("busy")).urls().renew(KNOWN, {1})
