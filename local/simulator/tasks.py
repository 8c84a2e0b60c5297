"""What the simulator knows: its tasks and their images, what it sent, what it was asked."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local.simulator.pictures import Picture, PictureFormat, draw_picture
from local.simulator.scripts import ACEDATA, FLUX_KONTEXT, Outcome, Script

# The extension says nothing about the content: a third of the names is right by chance.
_EXTENSIONS = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True, slots=True)
class SimulatedImage:
    """One image of a task, at a URL that dies."""

    kind: str  # origin or result
    index: int
    task_id: str
    url: str
    expires_at: float
    format: PictureFormat
    is_page: bool = False  # the URL serves HTML instead of the picture
    first_signature: int = 0  # of those that the URL's query may carry, the first that is alive
    outage_requests: int = 0  # so often it is answered 503 first

    @property
    def path(self) -> str:
        """Where the simulator serves it."""
        return self.url[self.url.index("/images/") :]

    @property
    def picture(self) -> Picture:
        """The bytes that the URL serves."""
        variant = "day" if self.kind == "origin" else f"result {self.index}"
        return draw_picture(self.task_id, variant, self.format)


@dataclass(slots=True)
class SimulatedTask:
    """A task that somebody submitted. Times are seconds since the epoch."""

    provider: str
    task_id: str
    script: Script
    callback_url: str | None
    params: Mapping[str, Any]  # the request that submitted it
    record_shaped: bool
    created_at: float
    ends_at: float  # may be brought forward by polls
    images: tuple[SimulatedImage, ...]
    polls_while_running: int = 0
    is_recorded: bool = True  # False: its end is not in its record yet
    signatures: int = 0  # that its record has made

    def outcome_at(self, now: float) -> Outcome | None:
        """How it ended, None while it is running as far as its record says."""
        return self.script.outcome if self.is_recorded and now >= self.ends_at else None

    def url_of(self, kind: str) -> str | None:
        """The URL of the first image of that kind."""
        return next((image.url for image in self.images if image.kind == kind), None)

    def signed_url_of(self, kind: str) -> str | None:
        """The same, as the record says it now: signed anew where the script signs."""
        url = self.url_of(kind)
        if url is None or kind != "origin" or not self.script.signs_origin:
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
    status: int | None  # None: no answer
    error: str | None = None

    @property
    def taken(self) -> bool:
        """Only 200 counts."""
        return self.status == 200


@dataclass(frozen=True, slots=True)
class Poll:
    """One request that asked about tasks."""

    provider: str
    task_ids: tuple[str, ...]
    asked_at: float


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One request for an image."""

    path: str
    user_agent: str
    status: int


def images_of(
    provider: str,
    task_id: str,
    script: Script,
    *,
    base_url: str,
    count: int,
    ready_at: float,
    lifetimes: Mapping[str, float],
) -> tuple[SimulatedImage, ...]:
    """The images of a task that will succeed; none for one that will fail."""
    if script.outcome is not Outcome.SUCCESS:
        return ()
    kinds = ["origin"] if provider == FLUX_KONTEXT and script.gives_origin else []
    kinds += ["result"] * (count if provider == ACEDATA else 1)
    images = []
    for place, kind in enumerate(kinds):
        index = place - (kinds[0] == "origin" and kind == "result")
        seed = zlib.crc32(f"{provider}/{task_id}/{kind}/{index}".encode())
        dead = kind == "origin" and not script.origin_alive
        is_page = kind == "result" and script.result_is_page
        base = (script.result_base_url if kind == "result" else None) or base_url
        extension = "png" if is_page else _EXTENSIONS[seed % 4]
        images.append(
            SimulatedImage(
                kind=kind,
                index=index,
                task_id=task_id,
                url=f"{base}/images/{provider}/{task_id}/{kind}-{index}.{extension}",
                expires_at=ready_at + (0 if dead else lifetimes[kind]),
                format=list(PictureFormat)[seed // 4 % 3],
                is_page=is_page,
                first_signature=2 if kind == "origin" and script.signs_origin else 0,
                outage_requests=script.outage_requests,
            )
        )
    return tuple(images)
