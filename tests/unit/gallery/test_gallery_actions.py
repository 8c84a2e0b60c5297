"""The gallery's actions, zip files and thumbnails over real sockets: allowed POST requests, and responses."""

import io
import runpy
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from catchlight.client.downloading import file_name
from catchlight_cli.gallery import GalleryServer, TaskActions
from catchlight_cli.gallery import thumbnails as thumbnails_module
from catchlight_cli.gallery.actions import Action, ActionName, ActionOutcome
from catchlight_cli.gallery.thumbnails import Thumbnails
from tests.tasks_api_in_memory import TasksApiInMemory, a_task, an_image

ACTION = "api/tasks/flux-kontext/t1/actions/redrive"


class FakeActions:
    """Records actions instead of running them."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []

    def plan(self, task: str) -> tuple[Action, ...]:
        return tuple(Action(name=name, effect=f"{name} of {task}", is_possible=True) for name in ActionName)

    def run(self, name: ActionName, task: str) -> ActionOutcome:
        self.ran.append((name, task))
        return ActionOutcome(name=name, is_done=True, detail="It is done.")


def an_image_file(size: tuple[int, int] = (2000, 1500)) -> bytes:
    written = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(written, "JPEG", quality=90)
    return written.getvalue()


PICTURE = an_image_file()


@pytest.fixture
def actions() -> FakeActions:
    return FakeActions()


@pytest.fixture
def api() -> TasksApiInMemory:
    images = [an_image(task_id, PICTURE) for task_id in ("t1", "t2")]
    tasks = [a_task(task_id, images=[image]) for task_id, image in zip(("t1", "t2"), images, strict=True)]
    return TasksApiInMemory(tasks, {image.key or "": PICTURE for image in images})


@pytest.fixture
def gallery(api: TasksApiInMemory, actions: FakeActions, tmp_path: Path) -> Iterator[GalleryServer]:
    with GalleryServer(
        api.client(), actions=cast("TaskActions", actions), thumbnails=Thumbnails(tmp_path / "thumbnails")
    ) as server:
        yield server


@pytest.fixture
def browser(gallery: GalleryServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gallery.url, trust_env=False) as client:
        yield client


def origin(gallery: GalleryServer) -> str:
    url = urlsplit(gallery.url)
    return f"{url.scheme}://{url.netloc}"


# ------------------------------------------------------------------------------------------------ actions


def test_requests_of_the_gallerys_page_list_and_run_actions(
    browser: httpx.Client, gallery: GalleryServer, actions: FakeActions
) -> None:
    planned = browser.get("api/tasks/flux-kontext/t1/actions").json()["actions"]
    assert [action["name"] for action in planned] == ["redrive", "poll", "resend-event"]
    assert planned[0]["effect"] == "redrive of flux-kontext#t1"
    assert actions.ran == []
    for site in ("same-origin", None):
        headers = {"Origin": origin(gallery), **({"Sec-Fetch-Site": site} if site else {})}
        answer = browser.post(ACTION, headers=headers)
        assert (answer.status_code, answer.json()["detail"]) == (200, "It is done.")
    assert actions.ran == [("redrive", "flux-kontext#t1")] * 2


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "{origin}0"}, 403),
        ({"Origin": "{origin}", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "{origin}", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "{origin}", "Host": "evil.example"}, 421),
    ],
)
def test_requests_of_other_pages_run_no_action(
    browser: httpx.Client, gallery: GalleryServer, actions: FakeActions, headers: dict[str, str], status: int
) -> None:
    sent = {name: value.replace("{origin}", origin(gallery)) for name, value in headers.items()}
    assert browser.post(ACTION, headers=sent).status_code == status
    assert actions.ran == []


def test_the_secret_is_required(gallery: GalleryServer, actions: FakeActions) -> None:
    for path in (f"/{ACTION}", f"/wrong/{ACTION}"):
        answer = httpx.post(f"{origin(gallery)}{path}", headers={"Origin": origin(gallery)}, trust_env=False)
        assert answer.status_code == 404
    assert actions.ran == []


def test_unknown_actions_and_other_methods_run_no_action(
    browser: httpx.Client, gallery: GalleryServer, actions: FakeActions
) -> None:
    own = {"Origin": origin(gallery)}
    for path in ("api/tasks/flux-kontext/t1/actions/delete", "api/tasks/flux-kontext/t1", ""):
        assert browser.post(path, headers=own).status_code == 404
    assert browser.get(ACTION).status_code == 404
    assert browser.put(ACTION, headers=own).status_code == 405
    assert actions.ran == []


def test_a_gallery_without_actions_is_read_only(api: TasksApiInMemory) -> None:
    with GalleryServer(api.client()) as server, httpx.Client(base_url=server.url, trust_env=False) as browser:
        assert browser.get("api/tasks/flux-kontext/t1/actions").json() == {"actions": []}
        assert browser.post(ACTION, headers={"Origin": origin(server)}).status_code == 404


# ------------------------------------------------------------------------------------------------ zip files and links


def test_the_images_of_tasks_are_sent_as_a_zip_file(browser: httpx.Client, api: TasksApiInMemory) -> None:
    answer = browser.get("images.zip", params={"tasks": "flux-kontext/t1,flux-kontext/t2"})
    assert answer.headers["Content-Disposition"] == 'attachment; filename="catchlight-images.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        expected = {file_name(task, task.images[0]) for task in api.tasks.values()}
        assert set(archive.namelist()) == expected
        assert {archive.read(name) for name in expected} == {PICTURE}


def test_a_zip_file_of_unknown_tasks_is_refused(browser: httpx.Client) -> None:
    assert browser.get("images.zip", params={"tasks": "flux-kontext/t1,flux-kontext/nope"}).status_code == 404


def test_an_interrupted_zip_file_is_invalid(browser: httpx.Client, api: TasksApiInMemory) -> None:
    api.pictures.clear()
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(browser.get("images.zip", params={"tasks": "flux-kontext/t1"}).content))


def test_a_presigned_link_to_an_image_is_returned(browser: httpx.Client) -> None:
    link = browser.get("api/tasks/flux-kontext/t1/links/result-0").json()["link"]
    assert link.startswith("https://storage.example/images/flux-kontext/t1/result-0.jpg?")


# ------------------------------------------------------------------------------------------------ thumbnails


def thumbnail(browser: httpx.Client, api: TasksApiInMemory) -> httpx.Response:
    sha256 = api.tasks["flux-kontext#t1"].images[0].sha256 or ""
    return browser.get("thumbnails/flux-kontext/t1/result-0", params={"sha256": sha256})


def test_a_thumbnail_is_small_and_created_once(browser: httpx.Client, api: TasksApiInMemory, tmp_path: Path) -> None:
    first = thumbnail(browser, api)
    assert first.headers["Content-Type"] == "image/webp"
    assert len(first.content) < 20_000 < len(PICTURE)  # noise compresses worst
    with Image.open(io.BytesIO(first.content)) as image:
        assert image.size == (280, 210)
    read = api.requested_paths(host="storage.example")
    assert thumbnail(browser, api).content == first.content
    assert api.requested_paths(host="storage.example") == read
    (stored,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert stored.stem == api.tasks["flux-kontext#t1"].images[0].sha256


def test_a_thumbnail_is_upright(tmp_path: Path) -> None:
    written = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    Image.new("RGB", (800, 400)).save(written, "JPEG", exif=exif)
    made = Thumbnails(tmp_path).make(written.getvalue())
    assert made
    with Image.open(io.BytesIO(made)) as image:
        assert image.width < image.height


def test_an_image_that_cannot_be_decoded_is_sent_unchanged(browser: httpx.Client, api: TasksApiInMemory) -> None:
    image = api.tasks["flux-kontext#t1"].images[0]
    api.pictures[image.key or ""] = b"\xff\xd8\xff not an image"
    answer = thumbnail(browser, api)
    assert (answer.status_code, answer.content) == (200, b"\xff\xd8\xff not an image")
    assert answer.headers["Content-Type"] == "image/jpeg"


def test_a_malformed_checksum_is_not_used_as_a_path(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    assert Thumbnails(tmp_path / "thumbnails").find("../../secret") is None


def test_a_thumbnail_that_cannot_be_stored_is_returned(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert Thumbnails(tmp_path / "file").make(PICTURE)


def test_without_pillow_the_module_loads_and_offers_no_thumbnails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runpy.run_path(thumbnails_module.__file__)["IS_AVAILABLE"]
    monkeypatch.setitem(sys.modules, "PIL", None)  # importing it raises ImportError
    assert not runpy.run_path(thumbnails_module.__file__)["IS_AVAILABLE"]


def test_a_gallery_without_thumbnails_sends_the_image(api: TasksApiInMemory) -> None:
    with GalleryServer(api.client()) as server, httpx.Client(base_url=server.url, trust_env=False) as browser:
        answer = thumbnail(browser, api)
    assert (answer.headers["Content-Type"], answer.content) == ("image/jpeg", PICTURE)
