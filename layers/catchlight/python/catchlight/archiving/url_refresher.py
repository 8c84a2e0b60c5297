"""Requests fresh URLs from providers for images whose known URLs have expired."""

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime

from catchlight.errors import ProviderError, UnconfirmedError
from catchlight.models import Image, ImageState, TaskReport, TaskStatus, by_place
from catchlight.polling.status_lookup import StatusLookup
from catchlight.providers import PROVIDERS
from catchlight.tasks.images import TaskImages
from catchlight.tasks.task import Task


class UrlRefresher:
    """Requests and writes fresh image URLs of one task at a time. Thread-safe."""

    def __init__(self, images: TaskImages, status_lookup: StatusLookup) -> None:
        self._images = images
        self._status_lookup = status_lookup

    def renew(self, task: Task, stale: Collection[int]) -> Task:
        """Requests fresh URLs of images, writes them, and returns the task with them.

        `stale` has the positions of the images in the task's list. Images with a fresh URL are PENDING again. The task
        is returned unchanged if there are no fresh URLs: no API key is configured, or the provider reports no success
        or the same URLs.

        Raises:
            ProviderError: the status request failed.
            UnconfirmedError: the task has changed meanwhile. Try again.
            SettingsError, StoreUnavailableError: the API key could not be read, or the fresh URLs not written.
        """
        report, renewed = self._request(task, stale)
        return self._replace(task, renewed, now=report.reported_at) if report else task

    def request_download_urls(self, task: Task, stale: Collection[int], *, now: datetime) -> Task:
        """Requests download URLs for the files of images, which the provider creates per request, and writes them.

        This is the last resort if the URLs in the provider's record have expired. `stale` has the positions of the
        images in the task's list. Returns the task with the new URLs; it is unchanged if the provider has no such
        request or returns no URL.

        Raises:
            UnconfirmedError: the task has changed meanwhile. Try again.
            SettingsError, StoreUnavailableError: the API key could not be read, or the URLs not written.
        """
        renewed = {}
        for index in stale:
            image = task.images[index]
            # If the request fails, the image keeps its expired URL.
            with suppress(ProviderError):
                if found := self._status_lookup.download_url(task.task, image.url):
                    url, expires_at = found
                    renewed[index] = image.model_copy(update={"url": url, "expires_at": expires_at})
        return self._replace(task, renewed, now=now)

    def find(self, task: Task, stale: Collection[int]) -> dict[int, Image]:
        """Returns the images with the fresh URLs that `renew` would write, by position, without writing them.

        Raises:
            ProviderError: the status request failed.
            SettingsError, StoreUnavailableError: the provider's API key could not be read.
        """
        return self._request(task, stale)[1]

    def _replace(self, task: Task, renewed: dict[int, Image], *, now: datetime) -> Task:
        if not renewed:
            return task
        if not self._images.replace(task, renewed, now=now):
            raise UnconfirmedError("the task has changed during the request to its provider")
        return task.with_images(renewed, now=now)

    def _request(self, task: Task, stale: Collection[int]) -> tuple[TaskReport | None, dict[int, Image]]:
        report = self._status_lookup.request_status(task.task)
        if report is None or report.status is not TaskStatus.SUCCEEDED:
            return report, {}
        present = by_place(report.images)
        return report, {
            index: _with_new_expiry(present[place], report)
            for index, (place, image) in enumerate(by_place(task.images).items())
            if index in stale
            and image.state is not ImageState.ARCHIVED
            and place in present
            and present[place].url != image.url
        }


def _with_new_expiry(image: Image, report: TaskReport) -> Image:
    # The provider created this new URL for its current response: its lifetime starts now, whatever the image's age.
    return image.model_copy(
        update={"expires_at": report.reported_at + PROVIDERS[report.provider].url_lifetimes[image.kind]}
    )
