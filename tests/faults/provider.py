"""The provider of the explored task: what is true, what it answers, what it serves. Plain functions, no sockets."""

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

_HOST = "tempfile.aiquickdraw.com"  # one of those that this provider's images are known to come from
TASK_ID = "task12345"


@cache
def _drawn(name: str) -> bytes:
    """A PNG that no other name has: as wide as the name says."""
    return picture(size=(8 + crc32(name.encode()) % 1000, 6))


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that the provider made, and the URL it told."""

    kind: ImageKind
    name: str
    url_number: int = 1  # of the URLs that it made for this image

    @property
    def url(self) -> str:
        return f"https://{_HOST}/{self.name}-{self.url_number}.png?{URL_QUERY}"

    @property
    def renewed(self) -> "Picture":
        """The same image at a URL that was made later."""
        return replace(self, url_number=self.url_number + 1)

    @property
    def content(self) -> bytes:
        return _drawn(self.name)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class Success:
    """A word on the task: it has succeeded."""

    pictures: tuple[Picture, ...]

    def callback(self) -> dict[str, Any]:
        info = {f"{picture.kind}ImageUrl": picture.url for picture in self.pictures}
        return {"code": 200, "msg": "success", "data": {"taskId": TASK_ID, "info": info}}

    def record(self) -> dict[str, Any]:
        return {"successFlag": 1, "response": {f"{picture.kind}ImageUrl": picture.url for picture in self.pictures}}


@dataclass(frozen=True, slots=True)
class Failure:
    """A word on the task: it has failed. 400 is the content policy, 500 an internal error, 501 the generation."""

    code: int

    def callback(self) -> dict[str, Any]:
        return {"code": self.code, "msg": "failed", "data": {"taskId": TASK_ID, "info": None}}

    def record(self) -> dict[str, Any]:
        return {"successFlag": 3, "errorCode": self.code, "errorMessage": "failed"}


@dataclass(frozen=True, slots=True)
class Generating:
    """A word on the task: the provider is still at work. Never sent by callback."""

    def record(self) -> dict[str, Any]:
        return {"successFlag": 0, "response": None}


Word = Success | Failure
ORIGIN = Picture(ImageKind.ORIGIN, "origin")
RESULT = Picture(ImageKind.RESULT, "result")
# A URL behind which there is no image.
PAGE = Picture(ImageKind.RESULT, "page")
DONE = Success((ORIGIN, RESULT))
# What somebody says who knows the token.
FORGED = Success((Picture(ImageKind.ORIGIN, "forged-origin"), Picture(ImageKind.RESULT, "forged-result")))

PICTURES = {picture.url: picture for picture in (ORIGIN, ORIGIN.renewed, RESULT, PAGE, *FORGED.pictures)}


def answer(word: Word | Generating) -> httpx.Response:
    """The provider's record of the task, in its envelope."""
    return httpx.Response(200, json={"code": 200, "msg": "success", "data": {"taskId": TASK_ID, **word.record()}})


def fetched(picture: Picture) -> ImageStream:
    """A picture as the archiver gets it. That it is one was tested elsewhere."""
    content = picture.content
    return ImageStream(iter([content]), len(content), _HOST)


def as_text(body: dict[str, Any]) -> str:
    """A body as it is sent."""
    return json.dumps(body)
