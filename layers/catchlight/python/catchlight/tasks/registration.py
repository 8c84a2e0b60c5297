"""Registers tasks: creates their items and adds them to the index byArrival."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from catchlight.aws.dynamodb import UpdateExpression
from catchlight.models import GenerationRequest, TaskStatus, iso, split_task_key, task_key
from catchlight.tasks.concurrent_writes import MAX_CONCURRENT_WRITES
from catchlight.tasks.table import TasksTable, document, set_required


def new_task(
    provider_id: str,
    task_id: str,
    *,
    now: datetime,
    request: GenerationRequest | None = None,
    idempotency_key: str | None = None,
    metadata: Mapping[str, str] | None = None,
    ref: str | None = None,
) -> UpdateExpression:
    """Builds the update that registers a task. It keeps existing attributes: the callback may have arrived before."""
    update = UpdateExpression()
    set_required(update, provider_id, task_id, TaskStatus.PENDING, now)
    update.set_once("status", TaskStatus.PENDING.value)
    update.set_once("registeredAt", iso(now))
    if request:
        update.set_once("request", document(request))
    if idempotency_key:
        update.set_once("idempotencyKey", idempotency_key)
    _set_metadata_and_ref(update, metadata, ref)
    return update


def _set_metadata_and_ref(update: UpdateExpression, metadata: Mapping[str, str] | None, ref: str | None) -> None:
    if metadata:
        update.set_once("metadata", metadata)
    if ref:
        update.set_once("ref", ref)


# The attributes that `set_required` sets. Items that users wrote may lack them.
_REQUIRED = {"provider", "taskId", "rank", "updatedAt", "feed", "arrivedAt"}


def is_complete(attributes: Collection[str]) -> bool:
    """Decides whether an item has all the attributes that `Registry.complete` adds."""
    return set(attributes) >= _REQUIRED


class Registry:
    """Registers tasks that were submitted elsewhere."""

    def __init__(self, table: TasksTable) -> None:
        self._table = table

    def register(
        self,
        provider_id: str,
        task_ids: Sequence[str],
        *,
        now: datetime,
        metadata: Mapping[str, str] | None = None,
        ref: str | None = None,
    ) -> list[bool]:
        """Registers tasks and returns for each of them, in their order, whether it is new.

        A known task gets `registeredAt`, the metadata and the reference if it lacks them: its callback may have arrived
        before.

        Raises:
            StoreUnavailableError: some tasks may be registered. The call can be repeated: these tasks are not new then.
        """
        with ThreadPoolExecutor(min(MAX_CONCURRENT_WRITES, len(task_ids))) as pool:
            return list(pool.map(lambda task_id: self._register(provider_id, task_id, now, metadata, ref), task_ids))

    def complete(self, task: str, status: TaskStatus, *, now: datetime) -> None:
        """Adds required attributes to an item that a user wrote with its key and status only.

        Raises:
            StoreUnavailableError: the call can be repeated.
        """
        provider_id, task_id = split_task_key(task)
        update = UpdateExpression()
        set_required(update, provider_id, task_id, status, now)
        # The condition: `rank` must be that of the stored status.
        self._table.update(task, update, condition=update.equals("status", status.value))

    def _register(
        self, provider_id: str, task_id: str, now: datetime, metadata: Mapping[str, str] | None, ref: str | None
    ) -> bool:
        task = task_key(provider_id, task_id)
        update = new_task(provider_id, task_id, now=now, metadata=metadata, ref=ref)
        written = self._table.update(task, update, condition="attribute_not_exists(task)")
        if not written.is_applied and (metadata or ref or "registeredAt" not in written.attributes):
            addition = UpdateExpression()
            addition.set_once("registeredAt", iso(now))
            _set_metadata_and_ref(addition, metadata, ref)
            self._table.update(task, addition, condition="attribute_exists(task)")
        return written.is_applied
