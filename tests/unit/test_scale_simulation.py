"""The simulation of load has the same outcome every time, and respects the limits of AWS."""

import re

import pytest

from catchlight.api.request_models import MAX_WAIT_SECONDS
from functions.archive_images.app import MAX_MESSAGES
from tests.benchmarks import scale_simulation
from tests.benchmarks.scale_simulation import Partition, Setting, Simulation, SimulationResult
from tests.unit.template.expanded import RAW


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_simulation, "SECONDS", 10.0)


def outcome_of(setting: Setting) -> SimulationResult:
    return Simulation(setting).run()


def test_settings_have_the_templates_defaults() -> None:
    setting = Setting(1)

    assert setting.callback_rate == RAW["Parameters"]["CallbackRateLimit"]["Default"]
    assert setting.archive_concurrency == RAW["Parameters"]["ArchiveConcurrency"]["Default"]
    assert setting.max_waiting == RAW["Parameters"]["TasksApiWaitLimit"]["Default"]
    assert scale_simulation.WAIT_SECONDS == MAX_WAIT_SECONDS
    assert scale_simulation.ARCHIVE_BATCH == MAX_MESSAGES


@pytest.mark.parametrize("tasks_a_second", [24, 30])
def test_the_templates_defaults_handle_as_many_tasks_as_the_description_says(tasks_a_second: int) -> None:
    (documented,) = re.findall(
        r"5 bear some (\d+) tasks a second", RAW["Parameters"]["ArchiveConcurrency"]["Description"]
    )

    is_handled = outcome_of(Setting(tasks_a_second)).percentile(0.99) < 3

    assert is_handled == (tasks_a_second <= int(documented))


def test_an_account_with_ten_concurrent_executions_handles_ten_tasks_a_second() -> None:
    """As docs/deploying.md says. Both readers of the stream use one of the executions for each of its shards."""
    assert outcome_of(Setting(10, account_concurrency=10)).percentile(0.99) < 5


WAITS_A_SECOND = 50


def test_the_limit_of_waiting_requests_keeps_concurrency_for_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 requests a second, each with wait=20, besides ten tasks a second. Without the limit, 1,000 wait at once."""
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


def test_the_limit_of_waiting_requests_keeps_concurrency_in_a_new_account() -> None:
    """At most 2 % of the callbacks find all ten executions in use. The services send them again."""
    limited, unlimited = (
        outcome_of(Setting(10, account_concurrency=10, waits_a_second=WAITS_A_SECOND, max_waiting=most))
        for most in (Setting(1).max_waiting, None)
    )

    assert limited.not_run <= 2
    assert unlimited.not_run > 80


def test_two_runs_have_the_same_outcome() -> None:
    assert outcome_of(Setting(20)) == outcome_of(Setting(20))


def test_tasks_within_all_limits_are_archived_within_three_seconds() -> None:
    outcome = outcome_of(Setting(10))

    assert (outcome.throttled, outcome.refused, len(outcome.latencies)) == (0, 0, 100)
    # A batching window of the stream, and the archiving.
    assert 1 < outcome.percentile(0.5) < outcome.percentile(0.99) < 3


def test_callbacks_over_the_rate_are_throttled() -> None:
    outcome = outcome_of(Setting(150, callback_rate=50))

    # The burst of 100 first, then 50 a second.
    assert outcome.throttled == pytest.approx(1500 - 100 - 50 * 10, abs=5)
    assert len(outcome.latencies) == 1500 - outcome.throttled


def test_too_little_archive_concurrency_causes_a_queue() -> None:
    few, many = (outcome_of(Setting(60, archive_concurrency=most)) for most in (2, 20))

    assert few.longest_queue > 10 * many.longest_queue
    assert few.percentile(0.99) > many.percentile(0.99) + 10


def test_a_partition_has_a_thousand_write_units_a_second() -> None:
    partition = Partition()

    assert partition.wait(0.0, 500) == pytest.approx(0.5)
    assert partition.wait(0.0, 500) == pytest.approx(1.0)
    assert partition.backlog(0.5) == pytest.approx(0.5)
    assert partition.backlog(2.0) == 0


def test_a_throttled_index_throttles_writes_to_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_simulation, "SECONDS", 20.0)

    # With a concurrency of 1,000, callbacks that wait for the index would use it up first.
    many = Setting(1000, callback_rate=2000, archive_concurrency=300, account_concurrency=10_000)

    assert outcome_of(many).refused > 1000
