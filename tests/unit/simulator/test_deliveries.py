"""Callbacks are delivered as the providers deliver them."""

import socket
import threading
import time

import pytest

from local.simulator import Simulator, deliveries, services
from local.simulator.deliveries import MAX_SENDERS, sign
from tests.unit.simulator.conftest import Receiver, client_of, deliveries_of
from tests.waiting import eventually


def test_only_200_is_success_and_there_are_three_retries(simulator: Simulator, receiver: Receiver) -> None:
    receiver.answers = [201, 301, 500, 503, 200]
    task = simulator.submit("flux-kontext", callback_url=receiver.url)
    eventually(lambda: simulator.outstanding_callbacks == 0)

    attempts = [(sent.attempt, sent.status) for sent in deliveries_of(simulator, task)]
    assert attempts == [(1, 201), (2, 301), (3, 500), (4, 503)]
    assert set(receiver.paths) == {"/callbacks/x/token"}  # the redirect was not followed
    assert receiver.bodies == [receiver.bodies[0]] * 4


def test_a_success_ends_the_retries(simulator: Simulator, receiver: Receiver) -> None:
    receiver.answers = [500]
    task = simulator.submit("nanobanana", callback_url=receiver.url)
    eventually(lambda: simulator.outstanding_callbacks == 0)
    assert [sent.status for sent in deliveries_of(simulator, task)] == [500, 200]
    assert deliveries_of(simulator, task)[-1].is_accepted


def test_a_refused_connection_is_recorded(simulator: Simulator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    task = simulator.submit("acedata", callback_url=f"http://127.0.0.1:{port}/")
    eventually(lambda: simulator.outstanding_callbacks == 0)
    assert [sent.status for sent in deliveries_of(simulator, task)] == [None] * 4
    assert "ConnectError" in (deliveries_of(simulator, task)[0].error or "")


def test_a_callback_can_come_before_the_answer_to_the_submission(simulator: Simulator, receiver: Receiver) -> None:
    simulator.submit("flux-kontext", scenario="callback-first", callback_url=receiver.url)
    assert len(receiver.bodies) == 1  # without waiting: the callback was delivered before `submit` returned


def test_a_late_failure_contradicts_the_success(simulator: Simulator, receiver: Receiver) -> None:
    simulator.submit("flux-kontext", scenario="late-failure", callback_url=receiver.url)
    eventually(lambda: simulator.outstanding_callbacks == 0)
    assert [body["code"] for body in receiver.bodies] == [200, 501]


def test_the_three_formats_of_a_missing_result(simulator: Simulator, receiver: Receiver) -> None:
    for scenario in ("content-policy", "internal-error", "generation-failed"):
        simulator.submit("flux-kontext", scenario=scenario, callback_url=receiver.url, task_id=scenario)
    eventually(lambda: simulator.outstanding_callbacks == 0)
    policy, internal, failed = sorted(receiver.bodies, key=lambda body: int(body["code"]))
    assert policy["data"]["info"] == {"originImageUrl": "", "resultImageUrl": ""}
    assert (internal["data"], internal["taskId"]) == (None, "internal-error")
    assert failed["data"]["info"] is None


def test_the_second_nanobanana_format_has_200_for_a_failure(simulator: Simulator, receiver: Receiver) -> None:
    simulator.submit("nanobanana", scenario="generation-failed", callback_url=receiver.url, record_shaped=True)
    eventually(lambda: simulator.outstanding_callbacks == 0)
    body = receiver.bodies[0]
    assert (body["code"], body["data"]["successFlag"], body["data"]["errorCode"]) == (200, 3, 501)


def test_only_kie_signs_callbacks_if_it_has_a_key(receiver: Receiver) -> None:
    with Simulator(time_scale=0.001, webhook_keys={"flux-kontext": "k3y"}) as simulator:
        simulator.submit("flux-kontext", callback_url=receiver.url, task_id="task12345")
        eventually(lambda: simulator.outstanding_callbacks == 0)
        simulator.submit("nanobanana", callback_url=receiver.url)
        eventually(lambda: simulator.outstanding_callbacks == 0)
    signed, unsigned = receiver.headers
    assert signed["X-Webhook-Signature"] == sign("k3y", "task12345", signed["X-Webhook-Timestamp"])
    assert abs(int(signed["X-Webhook-Timestamp"]) - time.time()) < 120
    assert "X-Webhook-Signature" not in unsigned


@pytest.mark.parametrize("expected", ["LWjZ5r+BmSIrvPfebGqC4HGPtU78hS6GFEeNMwBbzRI="])
def test_the_signature_is_the_documented_one(expected: str) -> None:
    assert sign("k3y", "task12345", "1700000000") == expected


def test_tasks_that_wait_for_their_callbacks_use_no_threads(receiver: Receiver) -> None:
    with Simulator(time_scale=1000.0) as simulator:
        before = threading.active_count()
        for _ in range(200):
            simulator.submit("flux-kontext", callback_url=receiver.url)

        assert simulator.outstanding_callbacks == 200
        assert threading.active_count() - before <= 2
    assert receiver.bodies == []


def test_many_callbacks_at_the_same_time_use_a_limited_number_of_threads(receiver: Receiver) -> None:
    with Simulator(time_scale=0.001) as simulator:
        before, most = threading.active_count(), 0
        for _ in range(200):
            simulator.submit("flux-kontext", callback_url=receiver.url)
            most = max(most, threading.active_count())
        eventually(lambda: simulator.outstanding_callbacks == 0)

        # The receiver has a thread for each connection, too.
        assert most - before <= 2 * MAX_SENDERS + 2
        assert len(receiver.bodies) == 200


def test_the_number_of_recorded_requests_is_limited(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "MAX_RECORDED", 3)
    monkeypatch.setattr(services, "MAX_RECORDED", 3)
    with Simulator(time_scale=0.001) as simulator, client_of(simulator) as client:
        tasks = [simulator.submit("nanobanana", callback_url=receiver.url) for _ in range(5)]
        eventually(lambda: simulator.outstanding_callbacks == 0)
        for task in tasks:
            client.get(task.images[0].path)
            client.get(f"/nanobanana/api/v1/nanobanana/record-info?taskId={task.task_id}")

        assert (len(simulator.deliveries), len(simulator.polls), len(simulator.image_requests)) == (3, 3, 3)
        assert simulator.image_requests[-1].path == tasks[-1].images[0].path
        assert simulator.image_requests_of(tasks[0].images[0].path) == 1
