"""Downloads of images into a folder: what is checked, what is resumed, and which files are not touched."""

import errno
import hashlib
import os
import string
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from catchlight.api.response_models import ImageResponse, QuarantineResponse
from catchlight.client import Download, download
from catchlight.client.downloading import MAX_PARALLEL_DOWNLOADS, file_name
from catchlight.models import ImageKind, TaskStatus, iso
from tests.tasks_api_in_memory import TasksApiInMemory, a_lost_image, a_task, an_image

CONTENT = b"an image of some length" * 100
NAME = "flux-kontext_t1_result-0.jpg"
PART = f".{NAME}.part"


def an_api(content: bytes = CONTENT, **image: object) -> TasksApiInMemory:
    """A tasks API with one task that has one image."""
    archived = an_image("t1", CONTENT, **image)  # type: ignore[arg-type]
    return TasksApiInMemory([a_task("t1", images=[archived])], {archived.key or "": content})


def run(api: TasksApiInMemory, folder: Path, **options: object) -> list[Download]:
    client = api.client()
    return list(download(client, client.tasks(), folder, **options))  # type: ignore[arg-type]


def storage(
    answer: Callable[[httpx.Request], httpx.Response | None],
) -> Callable[[httpx.Request], httpx.Response | None]:
    """Returns a handler whose response replaces the storage's, unless it is None."""
    return lambda request: answer(request) if request.url.host == "storage.example" else None


class BreaksOff(httpx.SyncByteStream):
    """Sends the first bytes of an image, then raises a read error."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield self._content
        raise httpx.ReadError("connection lost")


def test_the_file_name_contains_provider_task_and_image(tmp_path: Path) -> None:
    (image,) = run(an_api(), tmp_path / "new" / "folder")
    assert image.outcome == "downloaded"
    assert image.path == str(tmp_path / "new" / "folder" / NAME)
    assert Path(image.path).read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [NAME]


def test_an_existing_file_is_not_downloaded_again(tmp_path: Path) -> None:
    api = an_api()
    run(api, tmp_path)
    (again,) = run(api, tmp_path)
    assert again.outcome == "present"
    assert len(api.requested_paths(host="storage.example")) == 1


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_no_other_file_is_overwritten(tmp_path: Path, kind: str) -> None:
    target = tmp_path / NAME
    match kind:
        case "file":
            target.write_bytes(b"mine")
        case "folder":
            target.mkdir()
        case "dangling link":
            target.symlink_to(tmp_path / "nowhere")
    (image,) = run(an_api(), tmp_path)
    assert image.outcome == "failed"
    assert "is another file. Move it away" in str(image.reason)
    assert kind != "file" or target.read_bytes() == b"mine"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    api = an_api()

    def appear(_: httpx.Request) -> None:
        (tmp_path / NAME).write_bytes(b"mine")

    api.before = storage(appear)
    (image,) = run(api, tmp_path)
    assert image.outcome == "failed"
    assert (tmp_path / NAME).read_bytes() == b"mine"


@pytest.mark.parametrize("name", [PART, NAME])
@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe", "folder"])
def test_links_and_files_prepared_by_another_user_are_not_written_to(tmp_path: Path, name: str, kind: str) -> None:
    """In a folder that other users can write to, such as /tmp, they can create files with these names in advance."""
    folder, victim = tmp_path / "shared", tmp_path / "victim"
    folder.mkdir()
    victim.write_bytes(b"precious")
    match kind:
        case "link":
            (folder / name).symlink_to(victim)
        case "dangling link":
            (folder / name).symlink_to(tmp_path / "new")
        case "hard link":
            (folder / name).hardlink_to(victim)
        case "pipe":  # a program that opens it waits for the other end
            os.mkfifo(folder / name)
        case "folder":
            (folder / name).mkdir()

    (image,) = run(an_api(), folder)

    assert image.outcome == "failed"
    assert "Move it away" in str(image.reason)
    assert victim.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shared", "victim"]
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_partial_file_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / PART).write_bytes(CONTENT[:700])
    other_user = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other_user)
    (image,) = run(an_api(), tmp_path)
    assert image.outcome == "failed"
    assert "belongs to another user" in str(image.reason)
    assert (tmp_path / PART).read_bytes() == CONTENT[:700]


def test_a_link_to_the_same_bytes_does_not_count_as_present(tmp_path: Path) -> None:
    """The owner of the linked file can change its bytes later."""
    folder = tmp_path / "shared"
    folder.mkdir()
    (tmp_path / "theirs").write_bytes(CONTENT)
    (folder / NAME).symlink_to(tmp_path / "theirs")
    (image,) = run(an_api(), folder)
    assert image.outcome == "failed"


@pytest.mark.parametrize("has_hard_links", [True, False])
@pytest.mark.parametrize("kind", ["file", "same file", "empty folder", "link"])
def test_a_file_that_appears_just_before_publication_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, has_hard_links: bool
) -> None:
    """The file appears between the last check and the publication of the download."""
    real_link = os.link

    def link(source: Path, target: Path) -> None:
        match kind:
            case "file":
                target.write_bytes(b"mine")
            case "same file":
                target.write_bytes(CONTENT)
            case "empty folder":
                target.mkdir()
            case "link":
                target.symlink_to(tmp_path / "elsewhere")
        if not has_hard_links:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real_link(source, target)

    monkeypatch.setattr(os, "link", link)
    (image,) = run(an_api(), tmp_path)
    assert image.outcome == ("downloaded" if kind == "same file" else "failed")
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).is_symlink() == (kind == "link")
    if kind == "file":
        assert (tmp_path / NAME).read_bytes() == b"mine"


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    (image,) = run(an_api(), tmp_path)
    assert image.outcome == "downloaded"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {NAME: CONTENT}


def test_a_partial_file_that_is_replaced_meanwhile_is_not_published_as_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_link = os.link

    def link(source: Path, target: Path) -> None:
        source.unlink()
        source.write_bytes(b"another file")
        real_link(source, target)

    monkeypatch.setattr(os, "link", link)
    (image,) = run(an_api(), tmp_path)
    assert image.outcome == "failed"
    assert "was replaced" in str(image.reason)


def test_a_partial_file_is_continued(tmp_path: Path) -> None:
    (tmp_path / PART).write_bytes(CONTENT[:700])
    api = an_api()
    (image,) = run(api, tmp_path)
    assert image.outcome == "downloaded"
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [request.headers.get("Range") for request in api.requests[1:]] == ["bytes=700-"]


def test_a_partial_file_is_continued_within_one_run(tmp_path: Path) -> None:
    api = an_api()
    broken = [httpx.Response(200, stream=BreaksOff(CONTENT[:900]))]
    api.before = storage(lambda _: broken.pop() if broken else None)
    (image,) = run(api, tmp_path)
    assert image.outcome == "downloaded"
    assert (tmp_path / NAME).read_bytes() == CONTENT
    ranges = [request.headers.get("Range") for request in api.requests if request.url.host == "storage.example"]
    assert ranges == [None, "bytes=900-"]


def test_two_simultaneous_downloads_do_not_share_a_partial_file(tmp_path: Path) -> None:
    """The second one starts when nearly all bytes are there. It must not write to the partial file of the first one."""
    api = an_api()
    others: list[Download] = []

    class Slow(httpx.SyncByteStream):
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield CONTENT[:-10]
            others.extend(run(an_api(), tmp_path))
            yield CONTENT[-10:]

    api.before = storage(lambda _: httpx.Response(200, stream=Slow()))
    (image,) = run(api, tmp_path)
    (other,) = others
    assert (image.outcome, other.outcome) == ("downloaded", "failed")
    assert "Another process is downloading it" in str(other.reason)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {NAME: CONTENT}


def test_a_download_without_any_bytes_leaves_no_file(tmp_path: Path) -> None:
    api = an_api()
    api.before = storage(lambda _: httpx.Response(404))
    (image,) = run(api, tmp_path)
    assert image.outcome == "failed"
    assert list(tmp_path.iterdir()) == []


def test_a_response_without_a_range_replaces_the_partial_file(tmp_path: Path) -> None:
    (tmp_path / PART).write_bytes(CONTENT[:700])
    api = an_api()
    api.before = storage(lambda _: httpx.Response(200, content=CONTENT))
    (image,) = run(api, tmp_path)
    assert image.outcome == "downloaded"
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"something else", b"x" * len(CONTENT), b"x" * (len(CONTENT) + 5)])
def test_a_partial_file_of_another_image_is_discarded(tmp_path: Path, part: bytes) -> None:
    (tmp_path / PART).write_bytes(part)
    (image,) = run(an_api(), tmp_path)
    assert image.outcome == "downloaded"
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert not (tmp_path / PART).exists()


@pytest.mark.parametrize("content", [b"another image", CONTENT[:-1], CONTENT + b"x", b""])
def test_bytes_with_another_checksum_are_not_kept(tmp_path: Path, content: bytes) -> None:
    (image,) = run(an_api(content), tmp_path)
    assert image.outcome == "failed"
    assert "The SHA-256 of the downloaded bytes differs" in str(image.reason)
    assert list(tmp_path.iterdir()) == []


def test_an_expired_link_is_requested_again(tmp_path: Path) -> None:
    api = an_api()
    refusals = [httpx.Response(403)]
    api.before = storage(lambda _: refusals.pop() if refusals else None)
    (image,) = run(api, tmp_path)
    assert image.outcome == "downloaded"
    assert "/tasks/flux-kontext/t1/images/result-0" in api.requested_paths()


def test_a_link_that_is_about_to_expire_is_not_used(tmp_path: Path) -> None:
    api = an_api()
    client = api.client()
    expiring = iso(datetime.now(UTC) + timedelta(seconds=5))
    (task,) = client.page().tasks
    old = task.model_copy(update={"images": (task.images[0].model_copy(update={"link_expires_at": expiring}),)})
    (image,) = download(client, [old], tmp_path)
    assert image.outcome == "downloaded"
    assert api.requested_paths()[-1] == "/tasks/flux-kontext/t1/images/result-0"


def test_a_failed_image_does_not_affect_the_others(tmp_path: Path) -> None:
    images = [an_image("t1", CONTENT, index=index) for index in range(3)]
    api = TasksApiInMemory([a_task("t1", images=images)], {image.key or "": CONTENT for image in images})
    del api.pictures[images[1].key or ""]
    outcomes = {image.image: image for image in run(api, tmp_path)}
    assert [outcomes[f"result-{n}"].outcome for n in range(3)] == ["downloaded", "failed", "downloaded"]
    assert outcomes["result-1"].reason == "S3 returned HTTP 404 for the image."


def test_images_that_are_not_archived_are_listed_with_their_reason(tmp_path: Path) -> None:
    pending = a_lost_image("t1", kind="result", state="PENDING").model_copy(update={"reason": None})
    api = TasksApiInMemory([a_task("t1", TaskStatus.INCOMPLETE, images=[a_lost_image("t1"), pending])])
    reasons = {image.image: (image.outcome, image.reason) for image in run(api, tmp_path)}
    assert reasons == {
        "origin-0": ("missing", "its URL had expired: HTTP 404 on every try"),
        "result-0": ("missing", "not archived yet"),
    }


def test_quarantined_bytes_are_saved_as_a_file_that_no_program_opens(tmp_path: Path) -> None:
    key, body = "quarantine/flux-kontext/t1/origin-0", b"<html>" * 100
    quarantine = QuarantineResponse(key=key, bytes=len(body), sha256=hashlib.sha256(body).hexdigest())
    refused = a_lost_image("t1", state="REJECTED").model_copy(update={"quarantine": quarantine})
    archived = an_image("t1", CONTENT)
    task = a_task("t1", TaskStatus.INCOMPLETE, images=[refused, archived])
    api = TasksApiInMemory([task], {key: body, archived.key or "": CONTENT})

    (image,) = run(api, tmp_path, quarantined=True)

    assert (image.image, image.outcome) == ("origin-0", "downloaded")
    (file,) = tmp_path.iterdir()
    assert (file.name, file.read_bytes()) == ("flux-kontext_t1_origin-0.quarantined", body)
    assert run(api, tmp_path, quarantined=True)[0].outcome == "present"


def test_quarantined_bytes_that_differ_are_not_kept(tmp_path: Path) -> None:
    quarantine = QuarantineResponse(key="quarantine/k", bytes=3, sha256="0" * 64)
    refused = a_lost_image("t1", state="REJECTED").model_copy(update={"quarantine": quarantine})
    api = TasksApiInMemory([a_task("t1", TaskStatus.INCOMPLETE, images=[refused])], {"quarantine/k": b"odd"})

    assert [image.outcome for image in run(api, tmp_path, quarantined=True)] == ["failed"]
    assert list(tmp_path.iterdir()) == []


def test_only_the_requested_kinds_are_downloaded(tmp_path: Path) -> None:
    images = [an_image("t1", CONTENT), an_image("t1", b"before", kind="origin")]
    api = TasksApiInMemory(
        [a_task("t1", images=images)], {images[0].key or "": CONTENT, images[1].key or "": b"before"}
    )
    assert [image.image for image in run(api, tmp_path, kinds=[ImageKind.ORIGIN])] == ["origin-0"]


def test_a_task_that_is_listed_twice_is_downloaded_once(tmp_path: Path) -> None:
    api = an_api()
    client = api.client()
    page = client.page().tasks
    assert len(list(download(client, [*page, *page], tmp_path))) == 1


def test_closing_the_iterator_stops_the_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [an_image("t1", CONTENT, index=index) for index in range(20)]
    api = TasksApiInMemory([a_task("t1", images=images)], {image.key or "": CONTENT for image in images})
    first_request, is_shut_down = threading.Lock(), threading.Event()
    real_shutdown = ThreadPoolExecutor.shutdown

    def respond_after_shutdown_except_once(_: httpx.Request) -> None:
        if not first_request.acquire(blocking=False):
            assert is_shut_down.wait(60)

    def shutdown(pool: ThreadPoolExecutor, wait: bool = True, *, cancel_futures: bool = False) -> None:
        real_shutdown(pool, wait=False, cancel_futures=cancel_futures)
        is_shut_down.set()
        real_shutdown(pool, wait=wait)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", shutdown)
    api.before = storage(respond_after_shutdown_except_once)
    client = api.client()
    downloads = download(client, client.tasks(), tmp_path)
    next(downloads)
    threads = threading.active_count()
    downloads.close()
    assert threading.active_count() < threads
    assert len(api.requested_paths(host="storage.example")) <= 1 + MAX_PARALLEL_DOWNLOADS < 20
    assert not any(thread.name.startswith("download") for thread in threading.enumerate())


@pytest.mark.parametrize(
    "task_id", ["../../etc/passwd", "a" * 300, "a\x00b\nc", "CON:stream", "\u202egpj.exe", "-rf", "ä ö"]
)
def test_file_names_are_safe_on_every_platform(task_id: str) -> None:
    found = file_name(a_task(task_id, provider="acedata"), an_image("t1", CONTENT))
    assert set(found) <= {*string.ascii_letters, *string.digits, *"_-."}
    assert found.startswith("acedata_")
    assert found.count(".") == 1
    assert len(f".{found}.part") <= 255


def test_file_names_stay_different_when_characters_are_replaced() -> None:
    image = an_image("t1", CONTENT)
    assert file_name(a_task("a/b"), image) != file_name(a_task("a:b"), image)


def test_file_names_differ_by_more_than_case() -> None:
    """The file systems of macOS and Windows ignore case."""
    image = an_image("t1", CONTENT)
    names = [file_name(a_task(task_id), image).casefold() for task_id in ("abc", "ABC", "aBc", "Abc")]
    assert len(set(names)) == 4
    assert names[0] == "flux-kontext_abc_result-0.jpg"


@pytest.mark.parametrize("key", [None, "images/x/y/result-0", "images/x/y/result-0.html", "images/x/y/result-0.jpg/.."])
def test_a_file_name_without_a_known_extension_gets_the_extension_image(key: str | None) -> None:
    image: ImageResponse = an_image("t1", CONTENT, key=key)
    assert file_name(a_task("t1"), image) == "flux-kontext_t1_result-0.image"
