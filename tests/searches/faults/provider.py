"""The provider of the explored task: true results, responses and images. Plain functions, no sockets."""

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
    """Returns a PNG that is unique to the name: the name determines its width."""
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
    """A report of failure: code 400 is the content policy, 500 an internal error, 501 the generation."""

    code: int

    def callback(self) -> dict[str, Any]:
        return {"code": self.code, "msg": "failed", "data": {"taskId": TASK_ID, "info": None}}

    def record(self) -> dict[str, Any]:
        return {"successFlag": 3, "errorCode": self.code, "errorMessage": "failed"}


@dataclass(frozen=True, slots=True)
class Generating:
    """A report that the task is still running. Never sent by callback."""

    def record(self) -> dict[str, Any]:
        return {"successFlag": 0, "response": None}


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A poll without an answer about the task: 401 a refused key, 455 a maintenance."""

    code: int

    def envelope(self) -> dict[str, Any]:
        return {"code": self.code, "msg": "no", "data": None}


Word = Success | Failure
ORIGIN = Picture(ImageKind.ORIGIN, "origin")
RESULT = Picture(ImageKind.RESULT, "result")
# A URL that does not return an image.
PAGE = Picture(ImageKind.RESULT, "page")
DONE = Success((ORIGIN, RESULT))
# A success that is not finished.
ORIGINAL_ONLY = Success((ORIGIN,))
# A forged result from a sender who knows the token.
FORGED = Success((Picture(ImageKind.ORIGIN, "forged-origin"), Picture(ImageKind.RESULT, "forged-result")))

PICTURES = {picture.url: picture for picture in (ORIGIN, ORIGIN.renewed, RESULT, PAGE, *FORGED.pictures)}


def answer(word: Word | Generating | Unanswered) -> httpx.Response:
    """Returns the provider's record of the task, in its envelope."""
    if isinstance(word, Unanswered):
        return httpx.Response(200, json=word.envelope())
    return httpx.Response(200, json={"code": 200, "msg": "success", "data": {"taskId": TASK_ID, **word.record()}})


def fetched(picture: Picture) -> ImageStream:
    """Returns a picture as the archiver receives it. Image validation has its own tests."""
    content = picture.content
    return ImageStream(iter([content]), len(content), _HOST)


def as_text(body: dict[str, Any]) -> str:
    """Serialises a body as it is sent."""
    return json.dumps(body)
