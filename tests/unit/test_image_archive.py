"""One run of the archiver, without AWS: what is downloaded, what is written, and when the message is retried."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from catchlight.archiving.archiver import ArchiveRun, ImageArchive, _has_request
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
from catchlight.models import (
    ARCHIVING_TIMEOUT,
    GenerationRequest,
    Image,
    ImageKind,
    ImageState,
    Quarantined,
    Reporter,
    Task,
    TaskStatus,
    iso,
)
from catchlight.polling.intervals import MAX_ARCHIVE_TRIES
from catchlight.tasks.confirmations import ConfirmationResult

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
KEY = "acedata#t1"
PENDING, ARCHIVED, EXPIRED, REJECTED = ImageState
REQUEST = GenerationRequest(prompt="a")
GONE, LATE, NO_IMAGE = ImageGoneError("gone"), ImageUnavailableError("late"), ImageRejectedError("no image")
CUT = ImageTruncatedError("cut")


def image(name: str, state: ImageState = PENDING, kind: ImageKind = ImageKind.RESULT, minutes: int = 60) -> Image:
    url, expires_at = f"https://h.example/{name}", NOW + timedelta(minutes=minutes)
    return Image(kind=kind, url=url, expires_at=expires_at, state=state)


def a_task(*images: Image, status: TaskStatus = TaskStatus.SUCCEEDED, **more: Any) -> Task:
    return Task(task=KEY, status=status, images=images, reported_by=Reporter.POLL, **more)


class World:
    """The archiver's dependencies. Every URL has an image, unless `faults` has an error for it."""

    name = "images-bucket"

    def __init__(self, task: Task | None, **faults: Exception) -> None:
        self.task, self.faults = task, faults
        self.checked: ConfirmationResult | Exception | None = ConfirmationResult(task) if task else None
        self.fresh: Mapping[int, str] | Exception = {}
        self.downloads: Mapping[int, str] | Exception = {}
        self.fetched: list[tuple[str, tuple[str, ...]]] = []
        self.objects: list[tuple[str, str]] = []
        self.kept: list[str] = []  # keys in quarantine
        self.saved: list[dict[int, Image]] = []
        self.known_request: GenerationRequest | None = None
        self.requests: list[Task] = []
        self.was_asked = False
        self.failed_tries = 0
        self.negative_tries = 0
        self.noted: list[str] = []
        self.note_error: Exception | None = None
        self.trusts_confirmed_hosts = False
        self.ignores_originals = False

    def get(self, key: str) -> Task | None:
        assert key == KEY
        return self.task and self.task.model_copy(
            update={"archive_tries": self.failed_tries, "negative_tries": self.negative_tries}
        )

    def begin(self, task: Task, *, now: datetime) -> None:
        self.noted.append("begun")

    def end(self, task: Task, *, has_failed: bool, is_negative: bool = False) -> None:
        if self.note_error:
            raise self.note_error
        self.noted.append("negative" if is_negative else "failed" if has_failed else "ended")

    def ask(self, task: Task) -> None:
        self.was_asked = True
        if isinstance(self.checked, Exception):
            raise self.checked

    def is_unknown(self, task: Task, error: Exception) -> bool:
        return False

    def settle(self, task: Task, answer: None) -> ConfirmationResult:
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
        facts = ImageMetadata("image/png", "png", 8, 6)
        yield SimpleNamespace(
            format=SimpleNamespace(extension="png"),
            size=99,
            complete=lambda: facts,
            received=SimpleNamespace(size=99),
            source_host="h.example",
        )

    @contextmanager
    def quarantined(self, key: str, url: str) -> Iterator[Any]:
        if key not in self.kept:
            raise ImageGoneError("nothing is in quarantine")
        with self.fetch(url.replace("h.example/", "h.example/kept-"), ()) as kept:
            yield kept

    def quarantine(self, key: str, body: Any, *, task: str, url: str, source_host: str) -> Quarantined:
        self.kept.append(key)
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

    def keep(self, task: Task, images: Mapping[int, Image]) -> Task:
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
        archive = ImageArchive(
            *(parts,) * 7,
            additional_hosts=iter(["more.example"]),
            trusts_confirmed_hosts=self.trusts_confirmed_hosts,
            pool=pool,
            now=lambda: NOW,
        )
        if is_last_try:
            more["receives"] = MAX_ARCHIVE_TRIES
            self.failed_tries = self.negative_tries = MAX_ARCHIVE_TRIES - 1
        try:
            return archive.archive(KEY, **{"receives": 1, **more})
        finally:
            pool.shutdown()

    def run(self, **how: Any) -> ArchiveRun:
        run = self.archive(**how)
        assert run
        return run

    def states(self) -> dict[int, ImageState]:
        (saved,) = self.saved
        return {index: each.state for index, each in saved.items()}


WITH_IMAGES = (TaskStatus.PENDING, TaskStatus.TIMED_OUT, TaskStatus.SUCCEEDED)


@pytest.mark.parametrize("status", [None, *(status for status in TaskStatus if status not in WITH_IMAGES)])
def test_a_task_that_is_not_succeeded_needs_nothing(status: TaskStatus | None) -> None:
    world = World(a_task(image("a"), status=status) if status else None)

    assert world.archive() is None
    assert (world.was_asked, world.fetched, world.saved) == (False, [], [])


def test_an_archived_image_has_all_that_is_known_of_it() -> None:
    world = World(a_task(image("a"), image("o", kind=ImageKind.ORIGIN), image("b"), request=REQUEST))
    world.checked = ConfirmationResult(a_task(*world.task.images), known_request=REQUEST)  # type: ignore[union-attr] # there is one

    run = world.run()

    assert sorted(world.objects) == [
        (f"images/acedata/t1/{name}.png", KEY) for name in ("origin-0", "result-0", "result-1")
    ]
    hosts = world.fetched[0][1]
    assert "*.acedata.cloud" in hosts
    assert hosts[-1] == "more.example"
    (saved,) = world.saved
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
    assert len(world.requests) == 1
    assert world.known_request == REQUEST


def test_what_was_settled_before_is_left_alone() -> None:
    world = World(a_task(image("a", ARCHIVED), image("b", REJECTED), image("c"), image("d", EXPIRED)))

    world.run()

    assert [name for name, _ in world.fetched] == ["c"]
    assert world.states() == {2: ARCHIVED}


def test_the_image_that_expires_first_is_fetched_first() -> None:
    world = World(a_task(image("a", minutes=30), image("b", minutes=10), image("c", minutes=20)))

    world.run()

    assert [name for name, _ in world.fetched] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("fault", "is_last_try", "state", "failures"),
    [
        (NO_IMAGE, False, REJECTED, ()),
        (NO_IMAGE, True, REJECTED, ()),
        (LATE, False, None, (LATE,)),
        (LATE, True, None, (LATE,)),
        (GONE, False, None, (GONE,)),
        (GONE, True, EXPIRED, ()),
    ],
)
def test_a_fault_of_one_image_keeps_no_other_from_its_place(
    fault: Exception, is_last_try: bool, state: ImageState | None, failures: tuple[Exception, ...]
) -> None:
    world = World(a_task(image("a"), image("b")), a=fault)

    run = world.run(is_last_try=is_last_try)

    assert world.was_asked
    assert world.states() == {1: ARCHIVED} | ({0: state} if state else {})
    assert run.failures == failures
    assert [each.reason for each in run.images if each.state is state] == ([str(fault)] if state else [])
    # The request's object is written before the task gets its final status.
    assert len(world.requests) == (not failures)
    assert run.next_expiry(NOW) == (NOW + timedelta(hours=1) if failures else None)


def test_a_run_that_settles_nothing_writes_nothing() -> None:
    world = World(a_task(image("a", minutes=30), image("b", minutes=20)), a=LATE, b=LATE)

    run = world.run()

    assert (world.saved, world.requests, run.images) == ([], [], ())
    assert run.next_expiry(NOW) == NOW + timedelta(minutes=20)


def test_a_task_without_pending_images_gets_the_status_that_it_lacks() -> None:
    world = World(a_task(image("a", ARCHIVED)))

    world.run()

    assert world.saved == [{}]


# ------------------------------------------------------------------------------------------------ fresh URLs


def test_an_image_that_is_gone_is_fetched_from_its_fresh_url() -> None:
    world = World(a_task(image("a"), image("b"), image("c")), a=GONE, b=GONE, c=LATE)
    world.fresh = {0: "a2"}

    run = world.run()

    assert sorted(name for name, _ in world.fetched) == ["a", "a2", "b", "c"]
    assert world.states() == {0: ARCHIVED}
    assert run.renewed == 1
    assert run.failures == (GONE, LATE)


def test_a_fresh_url_that_is_gone_too_is_given_up_at_the_last_try() -> None:
    world = World(a_task(image("a")), a=GONE, a2=ImageGoneError("gone again"))
    world.fresh = {0: "a2"}

    world.run(is_last_try=True)

    ((expired,),) = (saved.values() for saved in world.saved)
    assert (expired.state, expired.url, expired.reason) == (EXPIRED, "https://h.example/a2", "gone again")


def test_a_provider_that_was_asked_a_moment_ago_is_not_asked_again() -> None:
    world = World(a_task(image("a")), a=GONE)
    world.checked = ConfirmationResult(a_task(image("a")), was_asked=True)
    world.fresh = AssertionError("asked twice")

    assert world.run().failures == (GONE,)
    world.saved.clear()
    assert world.run(is_last_try=True).failures == ()
    assert world.states() == {0: EXPIRED}


@pytest.mark.parametrize("was_asked", [False, True])
@pytest.mark.parametrize("fresh", ["a", "b"])
def test_an_image_whose_current_url_is_dead_is_fetched_from_a_download_url(was_asked: bool, fresh: str) -> None:
    world = World(a_task(image("a")), a=GONE, b=GONE)
    world.checked = ConfirmationResult(a_task(image("a")), was_asked=was_asked)
    world.fresh, world.downloads = {} if fresh == "a" else {0: "b"}, {0: "c"}

    run = world.run(is_last_try=True)

    assert (run.failures, run.renewed, world.states()) == ((), 1, {0: ARCHIVED})
    assert world.fetched[-1][0] == "c"


def test_a_download_url_that_is_dead_too_leaves_the_image_expired_at_the_last_try() -> None:
    world = World(a_task(image("a")), a=GONE, c=GONE)
    world.downloads = {0: "c"}

    assert world.run().failures == (GONE,)
    world.saved.clear()
    assert world.run(is_last_try=True).failures == ()
    assert world.states() == {0: EXPIRED}


@pytest.mark.parametrize("is_last_try", [False, True])
def test_no_image_expires_before_its_provider_could_be_asked(is_last_try: bool) -> None:
    busy = ProviderBusyError("busy")
    world = World(a_task(image("a"), image("b")), a=GONE)
    world.fresh = busy

    run = world.run(is_last_try=is_last_try)

    assert run.failures == (busy, GONE)
    assert run.renewed == 0
    assert world.states() == {1: ARCHIVED}


# ------------------------------------------------------------------------------------------------ confirmation


def test_a_result_that_cannot_be_confirmed_yet_is_kept_and_not_archived() -> None:
    unconfirmed = UnconfirmedError("not yet")
    world = World(a_task(image("a"), image("b", ARCHIVED), image("c")), c=LATE)
    world.checked = unconfirmed

    run = world.run()

    kept = image("a").model_copy(
        update={"quarantine": Quarantined(key="quarantine/acedata/t1/result-0", bytes=99, sha256="cd" * 32)}
    )
    assert (run.images, run.kept, run.failures) == ((), (kept,), (unconfirmed, LATE))
    assert (run.task.images[0], world.saved) == (kept, [{0: kept}])
    assert (world.kept, world.objects) == (["quarantine/acedata/t1/result-0"], [])


def test_the_original_of_a_task_without_a_result_is_kept_unless_originals_are_ignored() -> None:
    original = image("o", kind=ImageKind.ORIGIN)
    for ignores, kept in ((True, []), (False, ["quarantine/acedata/t1/origin-0"])):
        world = World(a_task(original, status=TaskStatus.PENDING))
        world.ignores_originals = ignores

        run = world.archive()

        assert (world.kept, world.was_asked, world.objects) == (kept, False, [])
        assert [each.kind for each in run.kept] == [ImageKind.ORIGIN] if run else ignores
        assert world.archive() is None or not ignores


@pytest.mark.parametrize("is_last_try", [True, False])
def test_an_original_that_is_gone_is_tried_again_while_tries_are_left(is_last_try: bool) -> None:
    world = World(a_task(image("o", kind=ImageKind.ORIGIN), status=TaskStatus.PENDING), o=GONE)

    run = world.archive(is_last_try=is_last_try)

    assert (run.failures if run else ()) == (() if is_last_try else (GONE,))


def test_what_is_kept_is_not_fetched_again() -> None:
    kept = image("a").model_copy(update={"quarantine": Quarantined(key="k", bytes=99, sha256="cd" * 32)})
    world = World(a_task(kept))
    world.checked = UnconfirmedError("not yet")

    assert world.run() == ArchiveRun(a_task(kept), failures=(world.checked,))
    assert (world.fetched, world.saved) == ([], [])


def test_what_is_kept_is_archived_from_quarantine_once_it_is_confirmed() -> None:
    kept = image("a").model_copy(update={"quarantine": Quarantined(key="k", bytes=99, sha256="cd" * 32)})
    world = World(a_task(kept), a=GONE)
    world.kept = ["quarantine/acedata/t1/result-0"]

    world.run()

    assert world.states() == {0: ARCHIVED}
    assert [name for name, _ in world.fetched] == ["kept-a"]
    assert world.saved[0][0].quarantine is None


def test_what_is_in_quarantine_no_longer_is_fetched() -> None:
    kept = image("a").model_copy(update={"quarantine": Quarantined(key="k", bytes=99, sha256="cd" * 32)})
    world = World(a_task(kept))

    world.run()

    assert (world.states(), [name for name, _ in world.fetched]) == ({0: ARCHIVED}, ["a"])


@pytest.mark.parametrize("is_contradicted", [False, True])
def test_a_result_that_was_corrected_to_none_is_not_fetched(is_contradicted: bool) -> None:
    failed = a_task(status=TaskStatus.FAILED)
    world = World(a_task(image("a")))
    world.checked = ConfirmationResult(failed, is_contradicted=is_contradicted, was_asked=True)

    assert world.run() == ArchiveRun(failed, is_contradicted=is_contradicted)
    assert (world.fetched, world.saved) == ([], [])


def test_a_result_that_was_corrected_to_another_is_fetched_and_reported() -> None:
    world = World(a_task(image("a")))
    world.checked = ConfirmationResult(a_task(image("b")), is_contradicted=True, was_asked=True)

    assert world.run().is_contradicted is True
    assert [name for name, _ in world.fetched] == ["b"]


# ------------------------------------------------------------------------------------------------ hosts


@pytest.mark.parametrize(
    ("reporter", "confirmed_at", "trusts", "is_any_host_allowed"),
    [
        (Reporter.POLL, None, True, True),
        (Reporter.CALLBACK, "2026-01-31T12:00:00.000Z", True, True),
        (Reporter.CALLBACK, None, True, False),  # no API key: the provider could not be asked
        (None, None, True, False),  # an item that a user has written
        (Reporter.POLL, None, False, False),
        (Reporter.CALLBACK, "2026-01-31T12:00:00.000Z", False, False),
    ],
)
def test_urls_that_the_provider_itself_has_reported_may_have_any_host(
    reporter: Reporter | None, confirmed_at: str | None, trusts: bool, is_any_host_allowed: bool
) -> None:
    world = World(a_task(image("a")).model_copy(update={"reported_by": reporter, "confirmed_at": confirmed_at}))
    world.trusts_confirmed_hosts = trusts

    world.run()

    ((_, hosts),) = world.fetched
    assert hosts == ("*",) if is_any_host_allowed else "*" not in hosts


# ------------------------------------------------------------------------------------------------ time


@pytest.mark.parametrize(("now", "fetched"), [(9.5, ["a"]), (10.0, ["a"]), (10.5, [])])
def test_no_image_is_begun_after_the_deadline(monkeypatch: pytest.MonkeyPatch, now: float, fetched: list[str]) -> None:
    monkeypatch.setattr("catchlight.archiving.archiver.time", SimpleNamespace(monotonic=lambda: now))
    world = World(a_task(image("a")))

    run = world.run(deadline=10.0)

    assert [name for name, _ in world.fetched] == fetched
    assert [str(failure) for failure in run.failures] == ([] if fetched else ["no time was left to download it"])


SHORT, LONG = GenerationRequest(prompt="a lion"), GenerationRequest(prompt="x" * 2000)


@pytest.mark.parametrize(
    ("states", "settled", "known", "put_with", "expected"),
    [
        ((ImageState.ARCHIVED,) * 2, 2, SHORT, SHORT, True),
        ((ImageState.ARCHIVED,) * 2, 2, LONG, LONG, False),
        ((ImageState.ARCHIVED,) * 2, 1, SHORT, SHORT, False),  # an earlier run wrote the other one
        ((ImageState.ARCHIVED, ImageState.EXPIRED), 2, SHORT, SHORT, True),
        ((ImageState.REJECTED, ImageState.EXPIRED), 2, SHORT, SHORT, False),  # there is no object
        ((ImageState.ARCHIVED,) * 2, 2, SHORT, None, False),  # known since the images were written
        ((ImageState.ARCHIVED,) * 2, 2, None, None, False),
    ],
)
def test_a_request_needs_no_file_if_all_archived_images_have_it(
    states: tuple[ImageState, ...],
    settled: int,
    known: GenerationRequest | None,
    put_with: GenerationRequest | None,
    expected: bool,
) -> None:
    images = tuple(
        Image(kind=ImageKind.RESULT, url=f"https://h.example/{number}", expires_at=NOW, state=state)
        for number, state in enumerate(states)
    )
    task = Task(task="acedata#t1", status=TaskStatus.SUCCEEDED, images=images, request=known)

    assert _has_request(images[:settled], task, put_with=put_with) is expected


# ------------------------------------------------------------------------------------------------ tries


@pytest.mark.parametrize(
    ("receives", "failed_tries", "tries"),
    [(1, 0, 1), (2, 1, 2), (5, 4, 5), (6, 0, 1), (6, 2, 3), (1, 4, 1), (300, 4, 300), (300, 299, 300)],
)
def test_a_throttled_receive_is_no_try(receives: int, failed_tries: int, tries: int) -> None:
    world = World(a_task(image("a")), a=GONE)
    world.failed_tries = world.negative_tries = failed_tries
    world.checked = ConfirmationResult(world.task, was_asked=True) if world.task else None

    run = world.run(receives=receives)

    assert run.tries == tries
    # A negative answer is final from the fifth try on.
    assert bool(run.failures) is (tries < MAX_ARCHIVE_TRIES)


@pytest.mark.parametrize(("negative_tries", "is_final"), [(0, False), (3, False), (4, True), (30, True)])
def test_the_first_negative_answers_after_an_outage_are_not_final(negative_tries: int, is_final: bool) -> None:
    world = World(a_task(image("a")), a=GONE)
    world.failed_tries, world.negative_tries = 30, negative_tries
    world.checked = ConfirmationResult(world.task, was_asked=True) if world.task else None

    run = world.run(receives=31)

    assert (run.failures, run.awaits_final_answer) == (() if is_final else (GONE,), not is_final)
    assert world.noted == (["begun", "ended"] if is_final else ["begun", "negative"])


@pytest.mark.parametrize(("error", "noted"), [(GONE, "negative"), (CUT, "negative"), (LATE, "failed")])
def test_a_try_is_negative_if_the_host_has_answered(error: Exception, noted: str) -> None:
    world = World(a_task(image("a"), image("b")), a=error, b=LATE)

    assert set(world.run().failures) == {error, LATE}

    assert world.noted == [noted]


def test_a_task_that_is_archived_at_once_is_not_written_to_for_its_try() -> None:
    world = World(a_task(image("a")))

    world.run()

    assert world.noted == []


@pytest.mark.parametrize(("receives", "noted"), [(1, ["failed"]), (2, ["begun", "failed"])])
def test_a_try_that_fails_is_noted(receives: int, noted: list[str]) -> None:
    world = World(a_task(image("a")), a=LATE)

    assert world.run(receives=receives).failures == (LATE,)

    assert world.noted == noted


def test_an_error_ends_a_try_that_failed() -> None:
    world = World(a_task(image("a")))
    world.checked = KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        world.run(receives=2)

    assert world.noted == ["begun", "failed"]


def test_a_try_that_cannot_be_noted_fails_and_keeps_its_results() -> None:
    world = World(a_task(image("a"), image("b")), b=LATE)
    world.note_error = StoreUnavailableError("DynamoDB is out")

    run = world.run()

    assert run.failures == (LATE, world.note_error)
    assert world.states() == {0: ARCHIVED}


AGO = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("since", "changed", "is_interrupted"),
    [
        (NOW - AGO, NOW - 2 * AGO, True),
        (NOW - AGO, NOW - AGO, True),
        (NOW - AGO, NOW - AGO / 2, False),  # the try ended with this change
        (NOW - ARCHIVING_TIMEOUT, NOW - 2 * AGO, False),  # it may be running: a task may have two messages
        (NOW - ARCHIVING_TIMEOUT - timedelta(milliseconds=1), NOW - 2 * AGO, True),
    ],
)
def test_a_task_whose_try_was_killed_is_archived_alone(
    since: datetime, changed: datetime, is_interrupted: bool
) -> None:
    world = World(a_task(image("a"), archiving_since=iso(since), updated_at=iso(changed)))

    if is_interrupted:
        with pytest.raises(InterruptedTryError) as error:
            world.run(receives=3)
        assert error.value.since == iso(since)
        assert (world.fetched, world.noted) == ([], [])
    assert world.run(receives=3, is_alone=is_interrupted).failures == ()
    assert [name for name, _ in world.fetched] == ["a"]


@pytest.mark.parametrize(
    ("since", "is_alone", "noted"),
    [
        (NOW - ARCHIVING_TIMEOUT, False, ["failed"]),
        (NOW - ARCHIVING_TIMEOUT, True, ["begun", "failed"]),
        (NOW - 3 * AGO, False, ["begun", "failed"]),  # before the last change
    ],
)
def test_the_mark_of_a_try_that_may_be_running_is_not_renewed(
    since: datetime, is_alone: bool, noted: list[str]
) -> None:
    """A task that kills each run and has several messages would never be found out."""
    world = World(a_task(image("a"), archiving_since=iso(since), updated_at=iso(NOW - 2 * AGO)), a=LATE)

    assert world.run(receives=3, is_alone=is_alone).failures == (LATE,)

    assert world.noted == noted
