"""ImageArchive without AWS: downloads, writes, and the failures after which the message is retried."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from catchlight.archiving.archiver import ArchiveRun, ImageArchive, _has_request
from catchlight.archiving.image_copier import ImageCopier
from catchlight.archiving.priority_pool import PriorityThreadPool
from catchlight.errors import (
    ImageGoneError,
    ImageRejectedError,
    ImageTruncatedError,
    ImageUnavailableError,
    InterruptedTryError,
    ProviderBusyError,
    StoreUnavailableError,
    UnconfirmedError,
)
from catchlight.images.formats import ImageMetadata
from catchlight.models import GenerationRequest, Image, ImageKind, ImageState, Quarantined, Reporter, TaskStatus, iso
from catchlight.polling.intervals import MAX_ARCHIVE_TRIES
from catchlight.tasks.confirmations import ConfirmationResult
from catchlight.tasks.task import ARCHIVING_TIMEOUT, Task

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
KEY = "acedata#t1"
PENDING, ARCHIVED, EXPIRED, REJECTED = ImageState
REQUEST = GenerationRequest(prompt="a")
GONE, UNAVAILABLE, NOT_AN_IMAGE = ImageGoneError("gone"), ImageUnavailableError("late"), ImageRejectedError("no image")
CUT = ImageTruncatedError("cut")


def image(name: str, state: ImageState = PENDING, kind: ImageKind = ImageKind.RESULT, minutes: int = 60) -> Image:
    url, expires_at = f"https://h.example/{name}", NOW + timedelta(minutes=minutes)
    return Image(kind=kind, url=url, expires_at=expires_at, state=state)


def a_task(*images: Image, status: TaskStatus = TaskStatus.SUCCEEDED, **more: Any) -> Task:
    return Task(task=KEY, status=status, images=images, reported_by=Reporter.POLL, **more)


class Harness:
    """The archiver's dependencies. Every URL returns an image, unless `faults` has an error for it."""

    name = "images-bucket"

    def __init__(self, task: Task | None, **faults: Exception) -> None:
        self.task, self.faults = task, faults
        self.checked: ConfirmationResult | Exception | None = ConfirmationResult(task) if task else None
        self.fresh: Mapping[int, str] | Exception = {}
        self.downloads: Mapping[int, str] | Exception = {}
        self.fetched: list[tuple[str, tuple[str, ...]]] = []
        self.objects: list[tuple[str, str]] = []
        self.quarantine_keys: list[str] = []  # keys of the objects in quarantine
        self.saved: list[dict[int, Image]] = []
        self.known_request: GenerationRequest | None = None
        self.requests: list[Task] = []
        self.has_requested_record = False
        self.failed_tries = 0
        self.negative_tries = 0
        self.recorded_tries: list[str] = []
        self.recording_error: Exception | None = None
        self.trusts_confirmed_hosts = False
        self.ignores_originals = False

    def get(self, key: str) -> Task | None:
        assert key == KEY
        return self.task and self.task.model_copy(
            update={"archive_tries": self.failed_tries, "negative_tries": self.negative_tries}
        )

    def begin(self, task: Task, *, now: datetime) -> None:
        self.recorded_tries.append("started")

    def end(self, task: Task, *, has_failed: bool, is_negative: bool = False) -> None:
        if self.recording_error:
            raise self.recording_error
        self.recorded_tries.append("negative" if is_negative else "failed" if has_failed else "ended")

    def request_status(self, task: Task) -> None:
        self.has_requested_record = True
        if isinstance(self.checked, Exception):
            raise self.checked

    def is_unknown(self, task: Task, error: Exception) -> bool:
        return False

    def settle(self, task: Task, report: None) -> ConfirmationResult:
        assert isinstance(self.checked, ConfirmationResult)
        return self.checked

    def renew(self, task: Task, stale: list[int]) -> Task:
        if isinstance(self.fresh, Exception):
            raise self.fresh
        return task.with_images({index: image(name) for index, name in self.fresh.items() if index in stale}, now=NOW)

    def request_download_urls(self, task: Task, stale: list[int], *, now: datetime) -> Task:
        if isinstance(self.downloads, Exception):
            raise self.downloads
        return task.with_images(
            {index: image(name) for index, name in self.downloads.items() if index in stale}, now=now
        )

    @contextmanager
    def fetch(self, url: str, hosts: tuple[str, ...]) -> Iterator[Any]:
        name = url.rpartition("/")[2]
        self.fetched.append((name, hosts))
        if name in self.faults:
            raise self.faults[name]
        metadata = ImageMetadata("image/png", 8, 6)
        yield SimpleNamespace(
            format=SimpleNamespace(extension="png"),
            size=99,
            complete=lambda: metadata,
            received=SimpleNamespace(size=99),
            source_host="h.example",
        )

    @contextmanager
    def quarantined(self, key: str, url: str) -> Iterator[Any]:
        if key not in self.quarantine_keys:
            raise ImageGoneError("nothing is in quarantine")
        with self.fetch(url.replace("h.example/", "h.example/quarantined-"), ()) as kept:
            yield kept

    def quarantine(self, key: str, body: Any, *, task: str, url: str, source_host: str) -> Quarantined:
        self.quarantine_keys.append(key)
        return Quarantined(key=key, bytes=body.size, sha256="cd" * 32)

    def put(self, key: str, incoming: Any, task: Task) -> str:
        self.objects.append((key, task.task))
        return "ab" * 32

    def put_request(self, task: Task) -> None:
        self.requests.append(task)

    def ignores(self, image: Image) -> bool:
        return image.kind is ImageKind.ORIGIN and self.ignores_originals

    def is_needed(self, task: Task, image: Image) -> bool:
        return image.kind is ImageKind.RESULT or image.state is ARCHIVED

    def save_quarantined(self, task: Task, images: Mapping[int, Image]) -> Task:
        return self.save(task, images, now=NOW, known_request=task.request)

    def save(
        self, task: Task, images: Mapping[int, Image], *, now: datetime, known_request: GenerationRequest | None
    ) -> Task:
        assert now == NOW
        self.saved.append(dict(images))
        self.known_request = known_request
        return task.model_copy(update={"images": tuple(images.get(i, each) for i, each in enumerate(task.images))})

    def archive(self, *, is_last_try: bool = False, threads: int = 1, **more: Any) -> ArchiveRun | None:
        parts: Any = self
        pool = PriorityThreadPool(threads)
        copier = ImageCopier(
            parts,
            parts,
            additional_hosts=iter(["more.example"]),
            trusts_confirmed_hosts=self.trusts_confirmed_hosts,
            now=lambda: NOW,
        )
        archive = ImageArchive(*(parts,) * 5, copier, parts, pool=pool, now=lambda: NOW)
        if is_last_try:
            more["receives"] = MAX_ARCHIVE_TRIES
            self.failed_tries = self.negative_tries = MAX_ARCHIVE_TRIES - 1
        try:
            return archive.archive(KEY, **{"receives": 1, **more})
        finally:
            pool.shutdown()

    def run(self, **options: Any) -> ArchiveRun:
        run = self.archive(**options)
        assert run
        return run

    def states(self) -> dict[int, ImageState]:
        (saved,) = self.saved
        return {index: each.state for index, each in saved.items()}


WITH_IMAGES = (TaskStatus.PENDING, TaskStatus.TIMED_OUT, TaskStatus.SUCCEEDED)


@pytest.mark.parametrize("status", [None, *(status for status in TaskStatus if status not in WITH_IMAGES)])
def test_tasks_with_other_statuses_are_not_archived(status: TaskStatus | None) -> None:
    harness = Harness(a_task(image("a"), status=status) if status else None)

    assert harness.archive() is None
    assert (harness.has_requested_record, harness.fetched, harness.saved) == (False, [], [])


def test_an_archived_image_has_its_object_its_dimensions_and_its_time() -> None:
    harness = Harness(a_task(image("a"), image("o", kind=ImageKind.ORIGIN), image("b"), request=REQUEST))
    harness.checked = ConfirmationResult(a_task(*harness.task.images), known_request=REQUEST)  # type: ignore[union-attr] # it is not None

    run = harness.run()

    assert sorted(harness.objects) == [
        (f"images/acedata/t1/{name}.png", KEY) for name in ("origin-0", "result-0", "result-1")
    ]
    hosts = harness.fetched[0][1]
    assert "*.acedata.cloud" in hosts
    assert hosts[-1] == "more.example"
    (saved,) = harness.saved
    assert saved[2] == image("b").model_copy(
        update={
            "state": ARCHIVED,
            "bucket": "images-bucket",
            "key": "images/acedata/t1/result-1.png",
            "bytes": 99,
            "sha256": "ab" * 32,
            "content_type": "image/png",
            "width": 8,
            "height": 6,
            "archived_at": NOW,
        }
    )
    assert set(run.images) == set(saved.values())
    assert (run.failures, run.renewed, run.is_contradicted, run.next_expiry(NOW)) == ((), 0, False, None)
    assert len(harness.requests) == 1
    assert harness.known_request == REQUEST


def test_images_in_a_final_state_are_not_downloaded_again() -> None:
    harness = Harness(a_task(image("a", ARCHIVED), image("b", REJECTED), image("c"), image("d", EXPIRED)))

    harness.run()

    assert [name for name, _ in harness.fetched] == ["c"]
    assert harness.states() == {2: ARCHIVED}


def test_the_image_whose_url_expires_first_is_downloaded_first() -> None:
    harness = Harness(a_task(image("a", minutes=30), image("b", minutes=10), image("c", minutes=20)))

    harness.run()

    assert [name for name, _ in harness.fetched] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("fault", "is_last_try", "state", "failures"),
    [
        (NOT_AN_IMAGE, False, REJECTED, ()),
        (NOT_AN_IMAGE, True, REJECTED, ()),
        (UNAVAILABLE, False, None, (UNAVAILABLE,)),
        (UNAVAILABLE, True, None, (UNAVAILABLE,)),
        (GONE, False, None, (GONE,)),
        (GONE, True, EXPIRED, ()),
    ],
)
def test_the_failure_of_one_image_does_not_affect_the_others(
    fault: Exception, is_last_try: bool, state: ImageState | None, failures: tuple[Exception, ...]
) -> None:
    harness = Harness(a_task(image("a"), image("b")), a=fault)

    run = harness.run(is_last_try=is_last_try)

    assert harness.has_requested_record
    assert harness.states() == {1: ARCHIVED} | ({0: state} if state else {})
    assert run.failures == failures
    assert [each.reason for each in run.images if each.state is state] == ([str(fault)] if state else [])
    # The request's object is written before the task gets its final status.
    assert len(harness.requests) == (not failures)
    assert run.next_expiry(NOW) == (NOW + timedelta(hours=1) if failures else None)


def test_a_run_without_final_results_writes_nothing() -> None:
    harness = Harness(a_task(image("a", minutes=30), image("b", minutes=20)), a=UNAVAILABLE, b=UNAVAILABLE)

    run = harness.run()

    assert (harness.saved, harness.requests, run.images) == ([], [], ())
    assert run.next_expiry(NOW) == NOW + timedelta(minutes=20)


def test_a_task_without_pending_images_gets_its_final_status() -> None:
    harness = Harness(a_task(image("a", ARCHIVED)))

    harness.run()

    assert harness.saved == [{}]


# ------------------------------------------------------------------------------------------------ fresh URLs


def test_an_image_with_an_expired_url_is_downloaded_from_a_fresh_url() -> None:
    harness = Harness(a_task(image("a"), image("b"), image("c")), a=GONE, b=GONE, c=UNAVAILABLE)
    harness.fresh = {0: "a2"}

    run = harness.run()

    assert sorted(name for name, _ in harness.fetched) == ["a", "a2", "b", "c"]
    assert harness.states() == {0: ARCHIVED}
    assert run.renewed == 1
    assert run.failures == (GONE, UNAVAILABLE)


def test_an_image_is_expired_after_the_last_try_if_its_fresh_url_fails_too() -> None:
    harness = Harness(a_task(image("a")), a=GONE, a2=ImageGoneError("gone again"))
    harness.fresh = {0: "a2"}

    harness.run(is_last_try=True)

    ((expired,),) = (saved.values() for saved in harness.saved)
    assert (expired.state, expired.url, expired.reason) == (EXPIRED, "https://h.example/a2", "gone again")


def test_fresh_urls_are_not_requested_right_after_a_confirmation() -> None:
    harness = Harness(a_task(image("a")), a=GONE)
    harness.checked = ConfirmationResult(a_task(image("a")), was_status_requested=True)
    harness.fresh = AssertionError("a second request to the provider")

    assert harness.run().failures == (GONE,)
    harness.saved.clear()
    assert harness.run(is_last_try=True).failures == ()
    assert harness.states() == {0: EXPIRED}


@pytest.mark.parametrize("was_status_requested", [False, True])
@pytest.mark.parametrize("fresh", ["a", "b"])
def test_an_image_whose_current_url_has_expired_is_downloaded_from_a_download_url(
    was_status_requested: bool, fresh: str
) -> None:
    harness = Harness(a_task(image("a")), a=GONE, b=GONE)
    harness.checked = ConfirmationResult(a_task(image("a")), was_status_requested=was_status_requested)
    harness.fresh, harness.downloads = {} if fresh == "a" else {0: "b"}, {0: "c"}

    run = harness.run(is_last_try=True)

    assert (run.failures, run.renewed, harness.states()) == ((), 1, {0: ARCHIVED})
    assert harness.fetched[-1][0] == "c"


def test_an_image_is_expired_after_the_last_try_if_its_download_url_fails_too() -> None:
    harness = Harness(a_task(image("a")), a=GONE, c=GONE)
    harness.downloads = {0: "c"}

    assert harness.run().failures == (GONE,)
    harness.saved.clear()
    assert harness.run(is_last_try=True).failures == ()
    assert harness.states() == {0: EXPIRED}


@pytest.mark.parametrize("is_last_try", [False, True])
def test_no_image_is_expired_while_its_provider_is_unavailable(is_last_try: bool) -> None:
    busy = ProviderBusyError("busy")
    harness = Harness(a_task(image("a"), image("b")), a=GONE)
    harness.fresh = busy

    run = harness.run(is_last_try=is_last_try)

    assert run.failures == (busy, GONE)
    assert run.renewed == 0
    assert harness.states() == {1: ARCHIVED}


# ------------------------------------------------------------------------------------------------ confirmation


def test_images_of_an_unconfirmed_result_are_quarantined_and_not_archived() -> None:
    unconfirmed = UnconfirmedError("not yet")
    harness = Harness(a_task(image("a"), image("b", ARCHIVED), image("c")), c=UNAVAILABLE)
    harness.checked = unconfirmed

    run = harness.run()

    kept = image("a").model_copy(
        update={"quarantine": Quarantined(key="quarantine/acedata/t1/result-0", bytes=99, sha256="cd" * 32)}
    )
    assert (run.images, run.quarantined, run.failures) == ((), (kept,), (unconfirmed, UNAVAILABLE))
    assert (run.task.images[0], harness.saved) == (kept, [{0: kept}])
    assert (harness.quarantine_keys, harness.objects) == (["quarantine/acedata/t1/result-0"], [])


def test_the_original_of_a_pending_task_is_quarantined_unless_originals_are_ignored() -> None:
    original = image("o", kind=ImageKind.ORIGIN)
    for ignores, kept in ((True, []), (False, ["quarantine/acedata/t1/origin-0"])):
        harness = Harness(a_task(original, status=TaskStatus.PENDING))
        harness.ignores_originals = ignores

        run = harness.archive()

        assert (harness.quarantine_keys, harness.has_requested_record, harness.objects) == (kept, False, [])
        assert [each.kind for each in run.quarantined] == [ImageKind.ORIGIN] if run else ignores
        assert harness.archive() is None or not ignores


@pytest.mark.parametrize("is_last_try", [True, False])
def test_an_original_with_an_expired_url_is_retried_until_the_last_try(is_last_try: bool) -> None:
    harness = Harness(a_task(image("o", kind=ImageKind.ORIGIN), status=TaskStatus.PENDING), o=GONE)

    run = harness.archive(is_last_try=is_last_try)

    assert (run.failures if run else ()) == (() if is_last_try else (GONE,))


def test_quarantined_images_are_not_downloaded_again() -> None:
    kept = image("a").model_copy(update={"quarantine": Quarantined(key="k", bytes=99, sha256="cd" * 32)})
    harness = Harness(a_task(kept))
    harness.checked = UnconfirmedError("not yet")

    assert harness.run() == ArchiveRun(a_task(kept), failures=(harness.checked,))
    assert (harness.fetched, harness.saved) == ([], [])


def test_confirmed_images_are_archived_from_quarantine() -> None:
    kept = image("a").model_copy(update={"quarantine": Quarantined(key="k", bytes=99, sha256="cd" * 32)})
    harness = Harness(a_task(kept), a=GONE)
    harness.quarantine_keys = ["quarantine/acedata/t1/result-0"]

    harness.run()

    assert harness.states() == {0: ARCHIVED}
    assert [name for name, _ in harness.fetched] == ["quarantined-a"]
    assert harness.saved[0][0].quarantine is None


def test_images_missing_from_quarantine_are_downloaded() -> None:
    kept = image("a").model_copy(update={"quarantine": Quarantined(key="k", bytes=99, sha256="cd" * 32)})
    harness = Harness(a_task(kept))

    harness.run()

    assert (harness.states(), [name for name, _ in harness.fetched]) == ({0: ARCHIVED}, ["a"])


@pytest.mark.parametrize("is_contradicted", [False, True])
def test_images_of_a_result_corrected_to_a_failure_are_not_downloaded(is_contradicted: bool) -> None:
    failed = a_task(status=TaskStatus.FAILED)
    harness = Harness(a_task(image("a")))
    harness.checked = ConfirmationResult(failed, is_contradicted=is_contradicted, was_status_requested=True)

    assert harness.run() == ArchiveRun(failed, is_contradicted=is_contradicted)
    assert (harness.fetched, harness.saved) == ([], [])


def test_the_images_of_a_corrected_result_are_downloaded() -> None:
    harness = Harness(a_task(image("a")))
    harness.checked = ConfirmationResult(a_task(image("b")), is_contradicted=True, was_status_requested=True)

    assert harness.run().is_contradicted is True
    assert [name for name, _ in harness.fetched] == ["b"]


# ------------------------------------------------------------------------------------------------ hosts


@pytest.mark.parametrize(
    ("reporter", "confirmed_at", "trusts", "is_any_host_allowed"),
    [
        (Reporter.POLL, None, True, True),
        (Reporter.CALLBACK, "2026-01-31T12:00:00.000Z", True, True),
        (Reporter.CALLBACK, None, True, False),  # no API key: no request to the provider
        (None, None, True, False),  # an item that a user has written
        (Reporter.POLL, None, False, False),
        (Reporter.CALLBACK, "2026-01-31T12:00:00.000Z", False, False),
    ],
)
def test_urls_that_the_provider_confirmed_may_have_any_host(
    reporter: Reporter | None, confirmed_at: str | None, trusts: bool, is_any_host_allowed: bool
) -> None:
    harness = Harness(a_task(image("a")).model_copy(update={"reported_by": reporter, "confirmed_at": confirmed_at}))
    harness.trusts_confirmed_hosts = trusts

    harness.run()

    ((_, hosts),) = harness.fetched
    assert hosts == ("*",) if is_any_host_allowed else "*" not in hosts


# ------------------------------------------------------------------------------------------------ time


@pytest.mark.parametrize(("now", "fetched"), [(9.5, ["a"]), (10.0, ["a"]), (10.5, [])])
def test_no_download_starts_after_the_deadline(monkeypatch: pytest.MonkeyPatch, now: float, fetched: list[str]) -> None:
    monkeypatch.setattr("catchlight.archiving.archiver.time", SimpleNamespace(monotonic=lambda: now))
    harness = Harness(a_task(image("a")))

    run = harness.run(deadline=10.0)

    assert [name for name, _ in harness.fetched] == fetched
    assert [str(failure) for failure in run.failures] == ([] if fetched else ["no time was left to download it"])


SHORT, LONG = GenerationRequest(prompt="a lion"), GenerationRequest(prompt="x" * 2000)


@pytest.mark.parametrize(
    ("states", "final_count", "known", "put_with", "expected"),
    [
        ((ImageState.ARCHIVED,) * 2, 2, SHORT, SHORT, True),
        ((ImageState.ARCHIVED,) * 2, 2, LONG, LONG, False),
        ((ImageState.ARCHIVED,) * 2, 1, SHORT, SHORT, False),  # an earlier run wrote the other object
        ((ImageState.ARCHIVED, ImageState.EXPIRED), 2, SHORT, SHORT, True),
        ((ImageState.REJECTED, ImageState.EXPIRED), 2, SHORT, SHORT, False),  # there is no object
        ((ImageState.ARCHIVED,) * 2, 2, SHORT, None, False),  # the request became known after the images were written
        ((ImageState.ARCHIVED,) * 2, 2, None, None, False),
    ],
)
def test_request_json_is_needed_unless_all_objects_have_the_request_as_metadata(
    states: tuple[ImageState, ...],
    final_count: int,
    known: GenerationRequest | None,
    put_with: GenerationRequest | None,
    expected: bool,
) -> None:
    images = tuple(
        Image(kind=ImageKind.RESULT, url=f"https://h.example/{number}", expires_at=NOW, state=state)
        for number, state in enumerate(states)
    )
    task = Task(task="acedata#t1", status=TaskStatus.SUCCEEDED, images=images, request=known)

    assert _has_request(images[:final_count], task, put_with=put_with) is expected


# ------------------------------------------------------------------------------------------------ tries


@pytest.mark.parametrize(
    ("receives", "failed_tries", "tries"),
    [(1, 0, 1), (2, 1, 2), (5, 4, 5), (6, 0, 1), (6, 2, 3), (1, 4, 1), (300, 4, 300), (300, 299, 300)],
)
def test_throttled_receives_do_not_count_as_tries(receives: int, failed_tries: int, tries: int) -> None:
    harness = Harness(a_task(image("a")), a=GONE)
    harness.failed_tries = harness.negative_tries = failed_tries
    harness.checked = ConfirmationResult(harness.task, was_status_requested=True) if harness.task else None

    run = harness.run(receives=receives)

    assert run.tries == tries
    # A negative answer is final from the fifth try on.
    assert bool(run.failures) is (tries < MAX_ARCHIVE_TRIES)


@pytest.mark.parametrize(("negative_tries", "is_final"), [(0, False), (3, False), (4, True), (30, True)])
def test_the_first_negative_answers_after_an_outage_are_not_final(negative_tries: int, is_final: bool) -> None:
    harness = Harness(a_task(image("a")), a=GONE)
    harness.failed_tries, harness.negative_tries = 30, negative_tries
    harness.checked = ConfirmationResult(harness.task, was_status_requested=True) if harness.task else None

    run = harness.run(receives=31)

    assert (run.failures, run.awaits_final_answer) == (() if is_final else (GONE,), not is_final)
    assert harness.recorded_tries == (["started", "ended"] if is_final else ["started", "negative"])


def test_tries_for_images_of_a_contradicted_callback_do_not_count_for_the_corrected_images() -> None:
    harness = Harness(a_task(image("false")), true=GONE)
    harness.failed_tries = harness.negative_tries = 30
    harness.checked = ConfirmationResult(a_task(image("true")), was_status_requested=True, is_contradicted=True)

    run = harness.run(receives=31)

    assert (run.failures, run.awaits_final_answer) == ((GONE,), True)


@pytest.mark.parametrize(("error", "recorded"), [(GONE, "negative"), (CUT, "negative"), (UNAVAILABLE, "failed")])
def test_a_try_is_negative_if_the_host_has_answered(error: Exception, recorded: str) -> None:
    harness = Harness(a_task(image("a"), image("b")), a=error, b=UNAVAILABLE)

    assert set(harness.run().failures) == {error, UNAVAILABLE}

    assert harness.recorded_tries == [recorded]


def test_a_successful_first_try_is_not_recorded() -> None:
    harness = Harness(a_task(image("a")))

    harness.run()

    assert harness.recorded_tries == []


@pytest.mark.parametrize(("receives", "recorded_tries"), [(1, ["failed"]), (2, ["started", "failed"])])
def test_a_failed_try_is_recorded(receives: int, recorded_tries: list[str]) -> None:
    harness = Harness(a_task(image("a")), a=UNAVAILABLE)

    assert harness.run(receives=receives).failures == (UNAVAILABLE,)

    assert harness.recorded_tries == recorded_tries


def test_an_unexpected_error_counts_as_a_failed_try() -> None:
    harness = Harness(a_task(image("a")))
    harness.checked = KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        harness.run(receives=2)

    assert harness.recorded_tries == ["started", "failed"]


def test_a_try_that_cannot_be_recorded_fails_after_saving_its_results() -> None:
    harness = Harness(a_task(image("a"), image("b")), b=UNAVAILABLE)
    harness.recording_error = StoreUnavailableError("DynamoDB is out")

    run = harness.run()

    assert run.failures == (UNAVAILABLE, harness.recording_error)
    assert harness.states() == {0: ARCHIVED}


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("since", "changed", "is_interrupted"),
    [
        (NOW - MINUTE, NOW - 2 * MINUTE, True),
        (NOW - MINUTE, NOW - MINUTE, True),
        (NOW - MINUTE, NOW - MINUTE / 2, False),  # the try ended with this change
        (NOW - ARCHIVING_TIMEOUT, NOW - 2 * MINUTE, False),  # the try may still run, for another message of the task
        (NOW - ARCHIVING_TIMEOUT - timedelta(milliseconds=1), NOW - 2 * MINUTE, True),
    ],
)
def test_a_task_whose_try_was_interrupted_is_archived_alone(
    since: datetime, changed: datetime, is_interrupted: bool
) -> None:
    harness = Harness(a_task(image("a"), archiving_since=iso(since), updated_at=iso(changed)))

    if is_interrupted:
        with pytest.raises(InterruptedTryError) as error:
            harness.run(receives=3)
        assert error.value.since == iso(since)
        assert (harness.fetched, harness.recorded_tries) == ([], [])
    assert harness.run(receives=3, is_alone=is_interrupted).failures == ()
    assert [name for name, _ in harness.fetched] == ["a"]


@pytest.mark.parametrize(
    ("since", "is_alone", "recorded_tries"),
    [
        (NOW - ARCHIVING_TIMEOUT, False, ["failed"]),
        (NOW - ARCHIVING_TIMEOUT, True, ["started", "failed"]),
        (NOW - 3 * MINUTE, False, ["started", "failed"]),  # that try ended: the task has changed since
    ],
)
def test_the_start_of_a_try_that_may_be_running_is_not_overwritten(
    since: datetime, is_alone: bool, recorded_tries: list[str]
) -> None:
    """Otherwise a task that crashes each run, and has several messages, would never be recognised as interrupted."""
    harness = Harness(a_task(image("a"), archiving_since=iso(since), updated_at=iso(NOW - 2 * MINUTE)), a=UNAVAILABLE)

    assert harness.run(receives=3, is_alone=is_alone).failures == (UNAVAILABLE,)

    assert harness.recorded_tries == recorded_tries
