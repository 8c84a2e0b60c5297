"""Tests that all kinds of disruptions are injected equally often, and each has an effect only while it lasts."""

import time
from typing import Any

import pytest
from moto.dynamodb.models.table import StreamShard

from catchlight.tasks.task import ARCHIVING_TIMEOUT
from local.lambda_.runtime import Function, TooManyRequestsError
from local.lambda_.runtime_api import InvocationResult
from local.moto.patches import dynamodb as moto_dynamodb
from tests.searches.soak.aws_faults import AwsFaults
from tests.searches.soak.disruptions import AWS_SERVICES, KINDS, LAMBDA, PROVIDERS, STREAM, DisruptionSchedule
from tests.searches.soak.memory_kills import SHARE_OF_VISIBILITY, VISIBILITY_TIMEOUT_SECONDS
from tests.unit.template.expanded import RESOURCES


class Stack:
    """Records the effects of the disruptions."""

    def __init__(self, time_scale: float = 0.0) -> None:
        self.providers_out: list[bool] = []
        self.aborted = 0
        self.faults = AwsFaults(1, {}, kill=lambda *_: None)
        self.disruptions = DisruptionSchedule(
            1, time_scale, self.faults, set_providers_out=self.providers_out.append, abort_execution=self.abort
        )

    def abort(self) -> bool:
        self.aborted += 1
        return True


def test_all_kinds_are_injected_equally_often() -> None:
    stack = Stack()
    stack.disruptions.start()
    deadline = time.monotonic() + 60
    while sum(stack.disruptions.injected.values()) < 5 * len(KINDS):
        assert time.monotonic() < deadline
    stack.disruptions.stop()

    injected = stack.disruptions.injected
    assert injected.keys() == set(KINDS)
    assert max(injected.values()) - min(injected.values()) <= 1
    assert stack.aborted >= 5
    assert stack.providers_out.count(True) >= 5
    assert stack.providers_out[-1] is False


@pytest.mark.parametrize("service", AWS_SERVICES)
def test_an_outage_affects_one_service(service: str) -> None:
    stack = Stack()
    stack.faults.begin()

    stack.disruptions.set(service)
    assert [name for name in AWS_SERVICES if stack.faults.is_out(name)] == [service]
    stack.disruptions.set(None)
    assert not any(map(stack.faults.is_out, AWS_SERVICES))


def test_a_killed_runs_message_becomes_visible_after_the_functions_timeout() -> None:
    queue = RESOURCES["ArchiveQueue"]["Properties"]

    assert queue["VisibilityTimeout"] == VISIBILITY_TIMEOUT_SECONDS
    assert ARCHIVING_TIMEOUT.total_seconds() < VISIBILITY_TIMEOUT_SECONDS * SHARE_OF_VISIBILITY


def test_lambda_throttles_invocations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Function, "invoke", lambda function, payload: InvocationResult(payload))
    disruptions, function = Stack().disruptions, object.__new__(Function)

    with disruptions.patched():
        assert function.invoke(b"1") == InvocationResult(b"1")
        disruptions.set(LAMBDA)
        with pytest.raises(TooManyRequestsError):
            function.invoke(b"2")
        disruptions.set(PROVIDERS)
        assert function.invoke(b"3") == InvocationResult(b"3")


def test_the_stream_withholds_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moto_dynamodb, "wait_for_records", lambda *_: True)
    disruptions = Stack().disruptions
    shard: Any = object.__new__(StreamShard)

    with disruptions.patched():
        assert moto_dynamodb.wait_for_records(shard, 0, 0.0)
        disruptions.set(STREAM)
        assert not moto_dynamodb.wait_for_records(shard, 0, 0.0)
        disruptions.set(None)
        assert moto_dynamodb.wait_for_records(shard, 0, 0.0)
