"""Simulates the provider of the explored task: its results, response bodies and images, without sockets."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from zlib import crc32

import httpx

from catchlight.images.stream import ImageStream
from catchlight.models import ImageKind
from tests.canary_secrets import URL_QUERY
from tests.image_server import picture

_HOST = "tempfile.aiquickdraw.com"  # one of the known image hosts of this provider
TASK_ID = "task12345"


@cache
def _drawn(name: str) -> bytes:
    """Returns a PNG whose width depends on the name, so that each name has its own content."""
    return picture(size=(8 + crc32(name.encode()) % 1000, 6))


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that the provider generated, and its URL."""

    kind: ImageKind
    name: str
    url_number: int = 1  # number of the URL among those for this image

    @property
    def url(self) -> str:
        return f"https://{_HOST}/{self.name}-{self.url_number}.png?{URL_QUERY}"

    @property
    def renewed(self) -> "Picture":
        """The same image with a newer URL."""
        return replace(self, url_number=self.url_number + 1)

    @property
    def content(self) -> bytes:
        return _drawn(self.name)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class Success:
    """A report of success."""

    pictures: tuple[Picture, ...]

    def callback(self) -> dict[str, Any]:
        info = {f"{picture.kind}ImageUrl": picture.url for picture in self.pictures}
        return {"code": 200, "msg": "success", "data": {"taskId": TASK_ID, "info": info}}

    def record(self) -> dict[str, Any]:
        return {"successFlag": 1, "response": {f"{picture.kind}ImageUrl": picture.url for picture in self.pictures}}


@dataclass(frozen=True, slots=True)
class Failure:
    """A report of failure. Codes: 400 content policy, 500 internal error, 501 failed generation."""

    code: int

    def callback(self) -> dict[str, Any]:
        return {"code": self.code, "msg": "failed", "data": {"taskId": TASK_ID, "info": None}}

    def record(self) -> dict[str, Any]:
        return {"successFlag": 3, "errorCode": self.code, "errorMessage": "failed"}


@dataclass(frozen=True, slots=True)
class StillRunning:
    """A response to a poll: the task is still running."""

    def record(self) -> dict[str, Any]:
        return {"successFlag": 0, "response": None}


@dataclass(frozen=True, slots=True)
class PollError:
    """An error response to a poll: code 401 is a refused API key, 455 maintenance."""

    code: int

    def envelope(self) -> dict[str, Any]:
        return {"code": self.code, "msg": "error", "data": None}


FinalReport = Success | Failure
ORIGIN = Picture(ImageKind.ORIGIN, "origin")
RESULT = Picture(ImageKind.RESULT, "result")
# A URL that does not return an image.
PAGE = Picture(ImageKind.RESULT, "page")
DONE = Success((ORIGIN, RESULT))
# A success without the result image, which the provider reports later.
ORIGINAL_ONLY = Success((ORIGIN,))
# A false result from a sender with a valid token.
FORGED = Success((Picture(ImageKind.ORIGIN, "forged-origin"), Picture(ImageKind.RESULT, "forged-result")))

PICTURES = {picture.url: picture for picture in (ORIGIN, ORIGIN.renewed, RESULT, PAGE, *FORGED.pictures)}


def answer(report: FinalReport | StillRunning | PollError) -> httpx.Response:
    """Returns the provider's response to a poll of the task."""
    if isinstance(report, PollError):
        return httpx.Response(200, json=report.envelope())
    return httpx.Response(200, json={"code": 200, "msg": "success", "data": {"taskId": TASK_ID, **report.record()}})


def download(picture: Picture) -> ImageStream:
    """Returns a picture as a download. Image validation is tested elsewhere."""
    content = picture.content
    return ImageStream(iter([content]), len(content), _HOST)


def as_text(body: dict[str, Any]) -> str:
    """Serialises a body as it is sent."""
    return json.dumps(body)
