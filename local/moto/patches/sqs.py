"""Corrects differences between moto's SQS and AWS, and scales its times."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from moto.core.utils import unix_time_millis
from moto.sqs.models import Message, Queue, SQSBackend

_SQS_LOCK = threading.RLock()


@contextmanager
def atomic_sqs_calls() -> Iterator[None]:
    """Serialises SQS calls: moto loses a message that is sent while another is deleted, and may deliver one twice.

    A waiting receive releases the lock and checks the queue every 50 ms. moto checks it once a second, so it would
    return a message up to a second after it has become visible again.
    """

    def locked(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with _SQS_LOCK:
                return function(*args, **kwargs)

        return call

    receive = SQSBackend.receive_message

    def receive_message(
        self: SQSBackend, queue_name: str, count: int, wait_seconds_timeout: int, visibility_timeout: int, *rest: Any
    ) -> Any:
        deadline = time.monotonic() + wait_seconds_timeout
        while True:
            with _SQS_LOCK:
                messages = receive(self, queue_name, count, 0, visibility_timeout, *rest)
            remaining = deadline - time.monotonic()
            if messages or remaining <= 0:
                return messages
            wait_for_messages(self.get_queue(queue_name), min(remaining, 0.05))

    with ExitStack() as patches:
        for owner, name in (
            (Queue, "add_message"),
            (Queue, "delete_message"),
            (SQSBackend, "change_message_visibility"),
        ):
            patches.enter_context(mock.patch.object(owner, name, locked(getattr(owner, name))))
        patches.enter_context(mock.patch.object(SQSBackend, "receive_message", receive_message))
        yield


def wait_for_messages(queue: Queue, timeout: float) -> bool:
    """Waits until the queue has a message to receive, at most for the timeout, and returns whether it has."""
    condition = queue._messages_lock
    with condition:
        return bool(condition.wait_for(lambda: queue.messages, timeout))


@contextmanager
def scaled_visibility(time_scale: float) -> Iterator[None]:
    """Applies ChangeMessageVisibility in scaled time, so that a demo does not wait 45 s for a fourth attempt.

    The visibility timeout set by a receive is not scaled, because the work that it protects takes real time.

    A call with the receipt handle of an earlier receive has no effect. The SDK repeats a request that got no response
    after one real second, when the message may already have been received again in scaled time; moto would make the
    message visible while it is being handled.
    """
    change = SQSBackend.change_message_visibility

    def change_message_visibility(
        self: SQSBackend, queue_name: str, receipt_handle: str, visibility_timeout: int
    ) -> None:
        with _SQS_LOCK:
            messages = self.get_queue(queue_name)._messages
            message = next((each for each in messages if each.had_receipt_handle(receipt_handle)), None)
            if message and message.receipt_handle != receipt_handle:
                return
            change(self, queue_name, receipt_handle, visibility_timeout)
            assert message, "moto refuses an unknown receipt handle"
            message.visible_at = unix_time_millis() + int(visibility_timeout) * 1000 * time_scale
            message.visibility_set_by = receipt_handle

    with mock.patch.object(SQSBackend, "change_message_visibility", change_message_visibility):
        yield


@contextmanager
def scaled_delays(time_scale: float) -> Iterator[None]:
    """Delivers delayed messages in scaled time."""

    def delay(self: Message, delay_seconds: int) -> None:
        self.delayed_until = unix_time_millis() + int(delay_seconds) * 1000 * time_scale

    with mock.patch.object(Message, "delay", delay):
        yield


def scale_rest_of_visibility(queue: Queue, receipt_handle: str, time_scale: float) -> None:
    """Scales the remaining visibility timeout of a message whose handling failed.

    Does nothing if the function itself has set the timeout with ChangeMessageVisibility: that value is scaled already.
    """
    with _SQS_LOCK:
        message = next((each for each in queue._messages if each.receipt_handle == receipt_handle), None)
        if message is not None and getattr(message, "visibility_set_by", None) != receipt_handle:
            now = unix_time_millis()
            message.visible_at = now + max(0.0, message.visible_at - now) * time_scale
