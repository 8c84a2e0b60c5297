"""The weather: every kind comes as often as the others, and each has its effect only while it lasts."""

import time
from typing import Any

import pytest
from moto.dynamodb.models.table import StreamShard

from catchlight.models import ARCHIVING_TIMEOUT
from local.lambda_.runtime import Function, TooManyRequestsError
from local.lambda_.runtime_api import Outcome
from local.moto import patches
from tests.searches.soak.aws_faults import AwsFaults
from tests.searches.soak.memory_kills import SHARE_OF_VISIBILITY, VISIBILITY_TIMEOUT_SECONDS
from tests.searches.soak.weather import AWS_SERVICES, KINDS, LAMBDA, PROVIDERS, STREAM, Weather
from tests.unit.template.expanded import RESOURCES


class Stack:
    """Notes what the weather does to a stack."""

    def __init__(self, time_scale: float = 0.0) -> None:
        self.providers_out: list[bool] = []
        self.aborted = 0
        self.faults = AwsFaults(1, {}, kill=lambda *_: None)
        self.weather = Weather(
            1, time_scale, self.faults, set_providers_out=self.providers_out.append, abort_execution=self.abort
        )

    def abort(self) -> bool:
        self.aborted += 1
        return True


def test_every_kind_is_played_as_often_as_the_others() -> None:
    stack = Stack()
    stack.weather.start()
    deadline = time.monotonic() + 60
    while sum(stack.weather.played.values()) < 5 * len(KINDS):
        assert time.monotonic() < deadline
    stack.weather.stop()

    played = stack.weather.played
    assert played.keys() == set(KINDS)
    assert max(played.values()) - min(played.values()) <= 1
    assert stack.aborted >= 5
    assert stack.providers_out.count(True) >= 5
    assert stack.providers_out[-1] is False


@pytest.mark.parametrize("service", AWS_SERVICES)
def test_one_service_is_out_at_a_time(service: str) -> None:
    stack = Stack()
    stack.faults.begin()

    stack.weather.set(service)
    assert [name for name in AWS_SERVICES if stack.faults.is_out(name)] == [service]
    stack.weather.set(None)
    assert not any(map(stack.faults.is_out, AWS_SERVICES))


def test_a_message_of_a_killed_run_comes_back_when_the_mark_of_the_run_counts() -> None:
    queue = RESOURCES["ArchiveQueue"]["Properties"]

    assert queue["VisibilityTimeout"] == VISIBILITY_TIMEOUT_SECONDS
    assert ARCHIVING_TIMEOUT.total_seconds() < VISIBILITY_TIMEOUT_SECONDS * SHARE_OF_VISIBILITY


def test_lambda_refuses_invocations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Function, "invoke", lambda function, payload: Outcome(payload))
    weather, function = Stack().weather, object.__new__(Function)

    with weather.watching():
        assert function.invoke(b"1") == Outcome(b"1")
        weather.set(LAMBDA)
        with pytest.raises(TooManyRequestsError):
            function.invoke(b"2")
        weather.set(PROVIDERS)
        assert function.invoke(b"3") == Outcome(b"3")


def test_the_stream_withholds_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "wait_for_records", lambda *_: True)
    weather = Stack().weather
    shard: Any = object.__new__(StreamShard)

    with weather.watching():
        assert patches.wait_for_records(shard, 0, 0.0)
        weather.set(STREAM)
        assert not patches.wait_for_records(shard, 0, 0.0)
        weather.set(None)
        assert patches.wait_for_records(shard, 0, 0.0)
