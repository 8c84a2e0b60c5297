"""Corrects differences between moto and AWS. Each patch states its reason and has its own test.

`installed()` applies the patches while a stack runs and removes them afterwards.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from moto.core.common_models import BaseModel

from local.moto.patches.dynamodb import atomic_dynamodb_calls, items_sorted_by_values, stream_without_idle_writes
from local.moto.patches.execution import (
    FunctionInvoker,
    failed_executions_are_reported,
    functions_run_by,
    state_machines_execute,
)
from local.moto.patches.s3 import put_object_as_s3_does
from local.moto.patches.sqs import atomic_sqs_calls, scaled_delays, scaled_visibility


@contextmanager
def installed(
    time_scale: float,
    invoke_function: FunctionInvoker,
    lambda_client: Callable[[], Any],
    on_failure: Callable[[str, str], None],
) -> Iterator[None]:
    """Applies all patches until the end of the block. `on_failure(source, message)` is called for failed executions."""
    with ExitStack() as patches:
        for patch in (
            instances_not_kept(),
            atomic_dynamodb_calls(),
            items_sorted_by_values(),
            stream_without_idle_writes(),
            atomic_sqs_calls(),
            scaled_visibility(time_scale),
            scaled_delays(time_scale),
            put_object_as_s3_does(),
            functions_run_by(invoke_function),
            state_machines_execute(time_scale, lambda_client),
            failed_executions_are_reported(on_failure),
        ):
            patches.enter_context(patch)
        yield


@contextmanager
def instances_not_kept() -> Iterator[None]:
    """Frees the memory of replaced objects: moto keeps all former states of items, messages and executions in a list.

    The list serves moto's own API only. That of S3 is still filled, because moto closes the files of objects with it.
    """
    new = BaseModel.__new__

    def create(cls: type[BaseModel], *args: Any, **kwargs: Any) -> BaseModel:
        is_disposed = cls.__module__ == "moto.s3.models"
        instance: BaseModel = new(cls, *args, **kwargs) if is_disposed else super(BaseModel, cls).__new__(cls)
        return instance

    with mock.patch.object(BaseModel, "__new__", staticmethod(create)):
        yield
