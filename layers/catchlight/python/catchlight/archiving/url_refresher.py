"""Asks providers for the present URLs of images whose known ones are dead."""

from collections.abc import Collection

from catchlight.errors import UnconfirmedError
from catchlight.models import Image, ImageState, Task, TaskReport, TaskStatus, by_place
from catchlight.polling.status_lookup import StatusLookup
from catchlight.providers import PROVIDERS
from catchlight.tasks.table import TasksTable


class UrlRefresher:
    """Renews the URLs of single tasks. Thread-safe."""

    def __init__(self, table: TasksTable, status_lookup: StatusLookup) -> None:
        self._table = table
        self._status_lookup = status_lookup

    def renew(self, task: Task, stale: Collection[int]) -> Task:
        """The task with those of its `stale` images (positions) PENDING again that have another URL by now.

        A task comes back as it is where there is nothing new: the provider cannot be asked for want of an API key,
        names no result, or the same URLs.

        Raises:
            ProviderError: the provider could not be asked.
            UnconfirmedError: the task has changed meanwhile. Try again.
            StoreUnavailableError: what it says could not be written.
        """
        answer, renewed = self._ask(task, stale)
        if answer is None or not renewed:
            return task
        if not self._table.renew(task, renewed, now=answer.reported_at):
            raise UnconfirmedError("the task has changed while its provider was asked")
        return task.with_images(renewed, now=answer.reported_at)

    def find(self, task: Task, stale: Collection[int]) -> dict[int, Image]:
        """What `renew` would put into the task, by position. Writes nothing.

        Raises:
            ProviderError: the provider could not be asked.
            SettingsError, StoreUnavailableError: its API key could not be read.
        """
        return self._ask(task, stale)[1]

    def _ask(self, task: Task, stale: Collection[int]) -> tuple[TaskReport | None, dict[int, Image]]:
        answer = self._status_lookup.ask(task.task)
        if answer is None or answer.status is not TaskStatus.SUCCEEDED:
            return answer, {}
        present = by_place(answer.images)
        return answer, {
            index: _living_anew(present[place], answer)
            for index, (place, image) in enumerate(by_place(task.images).items())
            if index in stale
            and image.state is not ImageState.ARCHIVED
            and place in present
            and present[place].url != image.url
        }


def _living_anew(image: Image, answer: TaskReport) -> Image:
    # A URL that nobody has seen before was made for this answer, however long ago the image was.
    return image.model_copy(
        update={"expires_at": answer.reported_at + PROVIDERS[answer.provider].url_lifetimes[image.kind]}
    )
