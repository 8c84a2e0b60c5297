"""Requests fresh URLs from providers for images whose known URLs have expired."""

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime

from catchlight.errors import ProviderError, UnconfirmedError
from catchlight.models import Image, ImageState, Task, TaskReport, TaskStatus, by_place
from catchlight.polling.status_lookup import StatusLookup
from catchlight.providers import PROVIDERS
from catchlight.tasks.images import TaskImages


class UrlRefresher:
    """Refreshes the image URLs of single tasks. Thread-safe."""

    def __init__(self, images: TaskImages, status_lookup: StatusLookup) -> None:
        self._images = images
        self._status_lookup = status_lookup

    def renew(self, task: Task, stale: Collection[int]) -> Task:
        """Requests fresh URLs for `stale` images (positions), writes them, and returns the task with them.

        Images with a fresh URL are PENDING again. The task is returned unchanged if there are no fresh URLs: no API key
        is configured, or the provider reports no success or the same URLs.

        Raises:
            ProviderError: the status request failed.
            UnconfirmedError: the task has changed meanwhile. Try again.
            SettingsError, StoreUnavailableError: the API key could not be read, or the fresh URLs not written.
        """
        answer, renewed = self._ask(task, stale)
        if answer is None or not renewed:
            return task
        if not self._images.replace(task, renewed, now=answer.reported_at):
            raise UnconfirmedError("the task has changed while its provider was asked")
        return task.with_images(renewed, now=answer.reported_at)

    def request_download_urls(self, task: Task, stale: Collection[int], *, now: datetime) -> Task:
        """Requests other URLs for the files at the URLs of `stale` images (positions), and writes them.

        This is the last resort for URLs of the provider's record that have expired. Returns the task with the URLs, or
        unchanged if the provider has no such request or returns none.

        Raises:
            UnconfirmedError: the task has changed meanwhile. Try again.
            SettingsError, StoreUnavailableError: the API key could not be read, or the URLs not written.
        """
        renewed = {}
        for index in stale:
            image = task.images[index]
            # Without another URL the image is what it was before: its URL has expired.
            with suppress(ProviderError):
                if found := self._status_lookup.download_url(task.task, image.url):
                    url, expires_at = found
                    renewed[index] = image.model_copy(update={"url": url, "expires_at": expires_at})
        if not renewed:
            return task
        if not self._images.replace(task, renewed, now=now):
            raise UnconfirmedError("the task has changed while its provider was asked")
        return task.with_images(renewed, now=now)

    def find(self, task: Task, stale: Collection[int]) -> dict[int, Image]:
        """Returns the images with fresh URLs that `renew` would write, by position. Writes nothing.

        Raises:
            ProviderError: the status request failed.
            SettingsError, StoreUnavailableError: the provider's API key could not be read.
        """
        return self._ask(task, stale)[1]

    def _ask(self, task: Task, stale: Collection[int]) -> tuple[TaskReport | None, dict[int, Image]]:
        answer = self._status_lookup.ask(task.task)
        if answer is None or answer.status is not TaskStatus.SUCCEEDED:
            return answer, {}
        present = by_place(answer.images)
        return answer, {
            index: _with_new_expiry(present[place], answer)
            for index, (place, image) in enumerate(by_place(task.images).items())
            if index in stale
            and image.state is not ImageState.ARCHIVED
            and place in present
            and present[place].url != image.url
        }


def _with_new_expiry(image: Image, answer: TaskReport) -> Image:
    # A URL not seen before was created for the current answer: its lifetime starts now, regardless of the image's age.
    return image.model_copy(
        update={"expires_at": answer.reported_at + PROVIDERS[answer.provider].url_lifetimes[image.kind]}
    )
