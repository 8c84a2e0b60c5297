"""The simulation of load has the same outcome every time, and respects the limits of AWS."""

import re

import pytest

from catchlight.api.request_models import MAX_WAIT_SECONDS
from functions.archive_images.app import MAX_MESSAGES
from tests.benchmarks import scale_simulation
from tests.benchmarks.scale_simulation import Outcome, Partition, Setting, Simulation
from tests.unit.template.expanded import RAW


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_simulation, "SECONDS", 10.0)


def outcome_of(setting: Setting) -> Outcome:
    return Simulation(setting).run()


def test_what_is_not_said_is_the_templates_default() -> None:
    setting = Setting(1)

    assert setting.callback_rate == RAW["Parameters"]["CallbackRateLimit"]["Default"]
    assert setting.archive_concurrency == RAW["Parameters"]["ArchiveConcurrency"]["Default"]
    assert setting.max_waiting == RAW["Parameters"]["TasksApiWaitLimit"]["Default"]
    assert scale_simulation.WAIT_SECONDS == MAX_WAIT_SECONDS
    assert scale_simulation.ARCHIVE_BATCH == MAX_MESSAGES


@pytest.mark.parametrize("tasks_a_second", [24, 30])
def test_the_templates_defaults_bear_as_many_tasks_as_its_description_says(tasks_a_second: int) -> None:
    (documented,) = re.findall(
        r"5 bear some (\d+) tasks a second", RAW["Parameters"]["ArchiveConcurrency"]["Description"]
    )

    is_borne = outcome_of(Setting(tasks_a_second)).percentile(0.99) < 3

    assert is_borne == (tasks_a_second <= int(documented))


def test_an_account_of_ten_bears_ten_tasks_a_second() -> None:
    """As docs/deploying.md says: also while both readers of the stream hold an invocation for each of its shards."""
    assert outcome_of(Setting(10, account_concurrency=10)).percentile(0.99) < 5


WAITS_A_SECOND = 50


def test_waiting_requests_leave_the_account_to_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 requests a second, each with wait=20, beside ten tasks a second; without the limit they are 1,000 at once."""
    monkeypatch.setattr(scale_simulation, "SECONDS", 60.0)
    alone, limited, unlimited = (
        outcome_of(setting)
        for setting in (
            Setting(10),
            Setting(10, waits_a_second=WAITS_A_SECOND),
            Setting(10, waits_a_second=WAITS_A_SECOND, max_waiting=None),
        )
    )

    assert limited.not_run == 0
    assert limited.percentile(0.99) == pytest.approx(alone.percentile(0.99), abs=0.2)
    assert limited.peak_concurrency < 20
    assert unlimited.not_run > 0
    assert unlimited.peak_concurrency >= 1000


def test_waiting_requests_leave_even_a_new_account_to_callbacks() -> None:
    """At most 2 % of the callbacks meet ten other invocations, and are sent again by their services."""
    limited, unlimited = (
        outcome_of(Setting(10, account_concurrency=10, waits_a_second=WAITS_A_SECOND, max_waiting=most))
        for most in (Setting(1).max_waiting, None)
    )

    assert limited.not_run <= 2
    assert unlimited.not_run > 80


def test_it_is_the_same_every_time() -> None:
    assert outcome_of(Setting(20)) == outcome_of(Setting(20))


def test_what_is_within_all_limits_is_archived_soon() -> None:
    outcome = outcome_of(Setting(10))

    assert (outcome.throttled, outcome.refused, len(outcome.latencies)) == (0, 0, 100)
    # A window of the stream, and the archiving.
    assert 1 < outcome.percentile(0.5) < outcome.percentile(0.99) < 3


def test_callbacks_over_the_rate_are_turned_away() -> None:
    outcome = outcome_of(Setting(150, callback_rate=50))

    # The burst of 100 first, then 50 a second.
    assert outcome.throttled == pytest.approx(1500 - 100 - 50 * 10, abs=5)
    assert len(outcome.latencies) == 1500 - outcome.throttled


def test_too_few_archivers_make_a_queue() -> None:
    few, many = (outcome_of(Setting(60, archive_concurrency=most)) for most in (2, 20))

    assert few.longest_queue > 10 * many.longest_queue
    assert few.percentile(0.99) > many.percentile(0.99) + 10


def test_a_partition_takes_a_thousand_units_a_second() -> None:
    partition = Partition()

    assert partition.wait(0.0, 500) == pytest.approx(0.5)
    assert partition.wait(0.0, 500) == pytest.approx(1.0)
    assert partition.backlog(0.5) == pytest.approx(0.5)
    assert partition.backlog(2.0) == 0


def test_an_index_that_is_full_holds_up_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_simulation, "SECONDS", 20.0)

    # Waiting for the index, callbacks would use up an account of 1,000 first.
    many = Setting(1000, callback_rate=2000, archive_concurrency=300, account_concurrency=10_000)

    assert outcome_of(many).refused > 1000
