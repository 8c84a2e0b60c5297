"""The state machine: timeouts are long enough, caught errors do not end it, and its history stays below the quota."""

import math
from dataclasses import dataclass
from itertools import product

import pytest

from catchlight.dispatch import MAX_TASKS_PER_EXECUTION, PollState
from catchlight.polling import poll_round, provider_client
from catchlight.polling.intervals import longest_poll_gap_seconds
from catchlight.providers import PROVIDERS
from catchlight.settings import PollTasksSettings
from functions.poll_tasks import app as poll_tasks
from tests.unit.template.execution_history import (
    EVENTS_OF_A_STATE,
    EVENTS_OF_AN_EXECUTION,
    MAX_EVENTS,
    events_of_task,
    most_attempts,
)
from tests.unit.template.expanded import FUNCTIONS, RAW, STATE_MACHINES, definition, deployed
from tests.unit.template.expanded import referred as referred_to

POLLING = "PollTasksStateMachine"
STATES = definition(POLLING)["States"]
# The Task, and the Wait after it. A successful poll has a Choice in addition.
EVENTS_OF_A_FAILED_POLL = events_of_task(most_attempts(STATES["Poll tasks"])) + EVENTS_OF_A_STATE
EVENTS_OF_A_POLL = EVENTS_OF_A_FAILED_POLL + EVENTS_OF_A_STATE
# The execution itself, and the last state after the polls.
EVENTS_BESIDE_POLLS = EVENTS_OF_AN_EXECUTION + EVENTS_OF_A_STATE
# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
MAX_PAYLOAD_BYTES, MAX_CAUSE_CHARACTERS = 262_144, 32_768
TASK_STATES = [
    pytest.param(machine, name, id=f"{machine}: {name}")
    for machine in STATE_MACHINES
    for name, state in definition(machine)["States"].items()
    if state["Type"] == "Task"
]


def test_the_timeouts_of_the_state_machine_exceed_those_of_polling_and_of_the_function() -> None:
    machine = definition(POLLING)

    assert machine["TimeoutSeconds"] > RAW["Parameters"]["GiveUpAfterSeconds"]["MaxValue"]
    timeout = FUNCTIONS["PollTasksFunction"]["Timeout"]
    # Only a little longer: if the function's response is lost, the state machine waits for this timeout.
    assert timeout < machine["States"]["Poll tasks"]["TimeoutSeconds"] <= timeout + 10


@pytest.mark.parametrize("name", STATE_MACHINES)
def test_executions_have_a_timeout(name: str) -> None:
    assert 0 < definition(name)["TimeoutSeconds"] <= 31_536_000  # a year: the limit of Step Functions
    # An EXPRESS execution ends after five minutes, and its waits cost money.
    assert STATE_MACHINES[name]["StateMachineType"] == "STANDARD"


@pytest.mark.parametrize(("machine", "name"), TASK_STATES)
def test_a_task_state_has_retriers_catchers_and_a_timeout(machine: str, name: str) -> None:
    state = definition(machine)["States"][name]

    for handlers in (state["Retry"], state["Catch"]):
        assert handlers[-1]["ErrorEquals"] == ["States.ALL"]
    assert all(retry["MaxAttempts"] <= 10 for retry in state["Retry"])
    assert state["TimeoutSeconds"] <= 900


@pytest.mark.parametrize(("machine", "name"), TASK_STATES)
def test_a_caught_error_never_ends_an_execution(machine: str, name: str) -> None:
    states = definition(machine)["States"]

    for catch in states[name]["Catch"]:
        after = states[catch["Next"]]
        assert (after["Type"], after["Next"]) == ("Wait", name)


def test_the_state_machine_calls_the_polling_function() -> None:
    substitutions = STATE_MACHINES[POLLING]["DefinitionSubstitutions"]

    assert {name: referred_to(value) for name, value in substitutions.items()} == {
        "PollTasksFunctionArn": "PollTasksFunction"
    }


def test_a_poll_has_time_for_requests_and_for_writing_their_results() -> None:
    timeout = FUNCTIONS["PollTasksFunction"]["Timeout"]

    assert provider_client.REQUEST_TIMEOUT_SECONDS < poll_tasks.RESERVED_SECONDS < timeout / 2


@pytest.mark.parametrize("name", STATE_MACHINES)
def test_a_state_machine_is_traced_by_default(name: str) -> None:
    assert deployed()[name]["TracingConfiguration"] == {"Enabled": True}
    assert deployed(Tracing="Disabled")[name]["TracingConfiguration"] == {"Enabled": False}


# ------------------------------------------------------------------------------------------------ quotas of AWS


@dataclass(frozen=True)
class Waits:
    """The polls of an execution whose tasks get no result: their number, and the waits between them."""

    polls: int
    seconds: int

    @property
    def most_events(self) -> int:
        """The longest history: each poll succeeds with its last attempt, and in all other time polls fail."""
        seconds_of_failures: int = definition(POLLING)["TimeoutSeconds"] - self.seconds
        failures = 1 + seconds_of_failures // STATES["Wait after error"]["Seconds"]
        return EVENTS_BESIDE_POLLS + self.polls * EVENTS_OF_A_POLL + int(failures) * EVENTS_OF_A_FAILED_POLL


def waits(first: int, settings: PollTasksSettings, *, is_busy: bool = False) -> Waits:
    waited, polls = first, 1
    while waited < settings.give_up_after_seconds:
        waited += poll_round.next_wait_seconds(settings, ["acedata#1"], waited=waited, polls=polls, is_busy=is_busy)
        polls += 1
        assert polls < MAX_EVENTS / EVENTS_OF_A_STATE, (
            "more polls than a history can have, even if each wrote only two events"
        )
    return Waits(polls, waited)


def settings_of(interval: int, slow_after: int, slow_interval: int, give_up: int) -> PollTasksSettings:
    return PollTasksSettings(
        tasks_table="tasks",
        images_bucket="images",
        provider_keys_secret="keys",
        poll_interval_seconds=interval,
        slow_poll_after_seconds=slow_after,
        slow_poll_interval_seconds=slow_interval,
        give_up_after_seconds=give_up,
    )


def bounds(name: str) -> list[int]:
    parameter = RAW["Parameters"][name]
    return [parameter[bound] for bound in ("MinValue", "Default", "MaxValue")]


FIRST_POLLS = bounds("FirstPollAfterSeconds")
ALLOWED = [
    settings_of(*values)
    for values in product(
        *map(bounds, ("PollIntervalSeconds", "SlowPollAfterSeconds", "SlowPollIntervalSeconds", "GiveUpAfterSeconds"))
    )
]


def test_the_history_of_the_longest_execution_is_just_below_the_quota() -> None:
    longest = max(waits(first, settings).most_events for first in FIRST_POLLS for settings in ALLOWED)

    assert longest < MAX_EVENTS
    # It is close to the quota: otherwise more polls could have the user's interval.
    assert longest > 0.9 * MAX_EVENTS


@pytest.mark.parametrize(
    ("interval", "give_up"),
    [pytest.param(30, 23 * 3600, id="30 s for 23 h"), pytest.param(5, 6 * 3600, id="5 s for 6 h")],
)
def test_intervals_are_lengthened_if_they_would_cause_too_many_polls(interval: int, give_up: int) -> None:
    found = waits(60, settings_of(interval, 86_400, interval, give_up))

    assert found.seconds == give_up
    assert found.polls < give_up / interval / 3
    assert found.most_events < MAX_EVENTS


def test_no_combination_of_parameters_has_too_many_polls_for_the_history() -> None:
    """Also for values between the bounds: few polls are frequent, and the others have longer intervals."""
    interval = poll_round.SPARSE_POLL_INTERVAL_SECONDS
    assert STATES["Wait after error"]["Seconds"] >= interval
    slots = definition(POLLING)["TimeoutSeconds"] / interval

    # The last poll takes place when polling ends, even if the wait before it is short.
    assert EVENTS_BESIDE_POLLS + (poll_round.MAX_FREQUENT_POLLS + slots + 1) * EVENTS_OF_A_POLL < MAX_EVENTS
    for settings in ALLOWED:
        wait = poll_round.next_wait_seconds(
            settings, ["acedata#1"], waited=0, polls=poll_round.MAX_FREQUENT_POLLS, is_busy=False
        )
        assert wait >= min(interval, settings.give_up_after_seconds)


def test_the_default_intervals_are_never_lengthened() -> None:
    parameters = ("PollIntervalSeconds", "SlowPollAfterSeconds", "SlowPollIntervalSeconds", "GiveUpAfterSeconds")
    interval, slow_after, slow_interval, give_up = (RAW["Parameters"][name]["Default"] for name in parameters)
    first = RAW["Parameters"]["FirstPollAfterSeconds"]["Default"]

    found = waits(first, settings_of(interval, slow_after, slow_interval, give_up))

    assert found.polls == 1 + math.ceil((slow_after - first) / interval) + math.ceil(
        (give_up - slow_after) / slow_interval
    )
    assert found.polls < poll_round.MAX_FREQUENT_POLLS


@pytest.mark.parametrize("provider_id", PROVIDERS)
def test_the_longest_interval_is_short_enough_for_the_shortest_url_lifetime(provider_id: str) -> None:
    gap = longest_poll_gap_seconds([provider_id])

    assert gap is not None
    assert gap >= poll_round.SPARSE_POLL_INTERVAL_SECONDS
    assert gap >= STATES["Wait after error"]["Seconds"]


def test_the_timeout_includes_time_for_the_polls_themselves() -> None:
    """Only waits count towards GiveUpAfterSeconds. The timeout of the state machine also covers the polls."""
    longest = max((waits(60, settings) for settings in ALLOWED), key=lambda found: found.seconds)

    per_poll = (definition(POLLING)["TimeoutSeconds"] - longest.seconds) / longest.polls
    assert per_poll > provider_client.REQUEST_TIMEOUT_SECONDS


def test_the_largest_state_fits_into_the_payload_limit() -> None:
    """Also with the caught error that is added to it, which Step Functions shortens."""
    longest_key = f"{max(PROVIDERS, key=len)}#{'x' * 128}"
    state = PollState(
        tasks=(longest_key,) * MAX_TASKS_PER_EXECUTION, wait_seconds=3600, waited_seconds=86_400, polls=999
    )

    assert len(state.model_dump_json(by_alias=True)) + 4 * MAX_CAUSE_CHARACTERS < MAX_PAYLOAD_BYTES
