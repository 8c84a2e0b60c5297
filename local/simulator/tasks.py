"""Defines what the simulator records: tasks, their images, callback deliveries, polls and image requests."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from local.simulator.pictures import Picture, PictureFormat, draw_phone_photo, draw_picture
from local.simulator.scenarios import ACEDATA, FLUX_SERVICES, KIE_MARKET, ResultContent, Scenario, SimulatedOutcome

# The simulator keeps at most this many deliveries, polls and image requests each: the latest ones.
MAX_RECORDED = 10_000

# HTML that a sign-in page or an unrelated site returns instead of an image.
_HTML = b"<!doctype html>\n<html><head><title>Sign in</title></head><body><script>alert(1)</script></body></html>\n"
# The first box of a HEIC file, and a body that is never decoded.
_HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0\0\x10\0mdat" + bytes(4088)

# The extension is independent of the content: about a third of the names match it by chance.
_EXTENSIONS = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True, slots=True)
class SimulatedImage:
    """One image of a task, at a URL that expires."""

    kind: str  # origin or result
    index: int
    task_id: str
    url: str
    expires_at: float
    format: PictureFormat
    result_content: ResultContent = ResultContent.PICTURE
    first_signature: int = 0  # the lowest `signature` value in the query with which the URL has not expired
    needs_download_url: bool = False  # requests without `download=1` in the query get 403
    outage_requests: int = 0  # number of requests that get 503 before the image is served
    redirects: tuple[int, ...] = ()  # statuses of the redirects to the image
    redirects_to: str | None = None  # target of the last redirect; None: the image; empty: the first redirect

    @property
    def path(self) -> str:
        """Path at which the simulator serves the image."""
        return self.url[self.url.index("/images/") :]

    @property
    def picture(self) -> Picture:
        """The picture that the URL serves."""
        variant = "day" if self.kind == "origin" else f"result {self.index}"
        if self.result_content is ResultContent.PHONE_PHOTO:
            return draw_phone_photo(self.task_id, variant)
        return draw_picture(self.task_id, variant, self.format)

    @property
    def content(self) -> bytes:
        """The bytes that the URL serves."""
        match self.result_content:
            case ResultContent.HTML:
                return _HTML
            case ResultContent.HEIC:
                return _HEIC
        return self.picture.content

    def redirect(self, hop: int) -> tuple[int, str] | None:
        """Returns status and target of the redirect with this number, from 0; None if this request gets the image."""
        if hop >= len(self.redirects):
            return None
        following = f"{self.url}?hop={hop + 1}"
        if hop == len(self.redirects) - 1 and self.redirects_to is not None:
            following = self.redirects_to or self.url
        return self.redirects[hop], following


@dataclass(slots=True)
class SimulatedTask:
    """A submitted task. Times are seconds since the epoch."""

    provider: str
    task_id: str
    scenario: Scenario
    callback_url: str | None
    params: Mapping[str, Any]  # body of the submission
    record_shaped: bool
    created_at: float
    ends_at: float  # polls may make it earlier
    images: tuple[SimulatedImage, ...]
    videos: tuple[str, ...] = ()  # URLs that serve nothing
    polls_while_running: int = 0
    is_recorded: bool = True  # False: polls report that the task is running, even after its end
    signatures: int = 0  # number of signed URLs that its record has returned
    successes_shown: int = 0  # number of records that have reported its success

    def outcome_at(self, now: float) -> SimulatedOutcome | None:
        """Returns the task's outcome; None while it runs according to its poll record."""
        return self.scenario.outcome if self.is_recorded and now >= self.ends_at else None

    def url_of(self, kind: str) -> str | None:
        """Returns the URL of the first image of this kind; None if there is none."""
        return next((image.url for image in self.images if image.kind == kind), None)

    def next_result_url(self) -> str | None:
        """Returns the result's URL for the next record of the task's success; None if this record has no result."""
        self.successes_shown += 1
        return self.url_of("result") if self.successes_shown > self.scenario.polls_before_result else None

    def next_origin_url(self) -> str | None:
        """Returns the original's URL for the next record: with a new signature if the scenario signs originals."""
        url = self.url_of("origin")
        if url is None or not self.scenario.signs_origin:
            return url
        self.signatures += 1
        return f"{url}?signature={self.signatures}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to deliver a callback."""

    provider: str
    task_id: str
    attempt: int  # 1 to 4
    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    sent_at: float
    seconds: float
    status: int | None  # None: no response
    error: str | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the receiver accepted the callback: only status 200 counts."""
        return self.status == 200


@dataclass(frozen=True, slots=True)
class Poll:
    """One request for the status of tasks."""

    provider: str
    task_ids: tuple[str, ...]
    received_at: float


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One request for an image."""

    path: str
    user_agent: str
    status: int


def images_of(
    provider: str,
    task_id: str,
    scenario: Scenario,
    *,
    base_url: str,
    count: int,
    ready_at: float,
    lifetimes: Mapping[str, float],
) -> tuple[SimulatedImage, ...]:
    """Returns the images of a task; none if the task will fail."""
    if scenario.outcome is not SimulatedOutcome.SUCCESS:
        return ()
    kinds = ["origin"] if provider in FLUX_SERVICES and scenario.gives_origin else []
    kinds += ["result"] * (count if provider in (ACEDATA, KIE_MARKET) else 1)
    images = []
    for place, kind in enumerate(kinds):
        index = place - (kinds[0] == "origin" and kind == "result")
        seed = zlib.crc32(f"{provider}/{task_id}/{kind}/{index}".encode())
        has_expired = kind == "origin" and scenario.origin_has_expired
        is_result = kind == "result"
        content = scenario.result_content if is_result else ResultContent.PICTURE
        base = (scenario.result_base_url if is_result else None) or base_url
        extension = "png" if content is ResultContent.HTML else _EXTENSIONS[seed % 4]
        images.append(
            SimulatedImage(
                kind=kind,
                index=index,
                task_id=task_id,
                url=f"{base.format(port=urlsplit(base_url).port)}/images/{provider}/{task_id}/{kind}-{index}.{extension}",
                expires_at=ready_at + (0 if has_expired else lifetimes[kind]),
                format=list(PictureFormat)[seed // 4 % 3],
                result_content=content,
                first_signature=2 if kind == "origin" and scenario.signs_origin else 0,
                needs_download_url=is_result and scenario.needs_download_url,
                outage_requests=scenario.outage_requests,
                redirects=scenario.redirects if is_result else (),
                redirects_to=scenario.redirects_to,
            )
        )
    return tuple(images)
