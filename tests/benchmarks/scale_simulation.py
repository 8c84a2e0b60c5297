"""Simulates many tasks per second in AWS with AWS's documented limits; deterministic.

    .venv/bin/python -m tests.benchmarks.scale_simulation

Assumptions:

- Tasks are registered and reported at an even rate. Images and calls take as long as in the bill (`bill_prices.toml`).
  Write units are those of the real items.
- Each DynamoDB partition accepts 1,000 write units a second, without burst capacity. A new on-demand table has four
  partitions, each with a shard of its stream. Each status is one partition of the index byStatus: its entries are added
  at the end, so that a split has no effect.
- A write that waits for longer than a callback's attempts is rejected, and the provider sends the callback again. Such
  callbacks are counted and not simulated further, and so are callbacks for which the account has no concurrent
  execution left.
- Requests that wait for a task arrive at random intervals. Each task is still running when its request has waited for
  the longest allowed time.
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, islice, pairwise
from math import ceil
from random import Random
from typing import Any

SECONDS = 60.0
SHARDS = 4
WRITE_UNITS_A_SECOND = 1000.0  # of one partition
LONGEST_WRITE_SECONDS = 6.0  # three attempts of two seconds
STREAM_BATCH, STREAM_WINDOW_SECONDS = 100, 1.0
STREAM_POLL_SECONDS = 0.25  # Lambda reads each shard four times a second
ARCHIVE_BATCH = 5
# Lambda's pollers of a queue start with 5 invocations and add up to 300 a minute.
FIRST_POLLERS, MORE_POLLERS_A_SECOND = 5, 5.0
START_EXECUTION_A_SECOND = 150.0  # 300 in us-east-1, us-west-2 and eu-west-1
TRANSITIONS_A_SECOND = 800.0  # 5,000 in the three regions
TASKS_PER_EXECUTION = 50
TRANSITIONS_PER_EXECUTION = 4
# Seconds, as in the bill, of a callback, of a handler without its calls, and of calls. One call sends ten messages.
RECEIVE_SECONDS = 0.014
HANDLER_SECONDS, SEND_SECONDS, START_EXECUTION_SECONDS = 0.008, 0.012, 0.035
# Seconds of the stages of archiving: reading the task and requesting the record; downloading and uploading; the end of
# the upload, the put of the request, and the write of the task.
ARCHIVE_STAGES = {"confirmation": 0.314, "fetch": 0.6, "put": 0.106}
ARCHIVE_SECONDS = sum(ARCHIVE_STAGES.values())
# The stages between a callback and its object.
STAGES = ("callback", "stream", "window", "dispatch", "queue", *ARCHIVE_STAGES)
# A request to the tasks API that does not wait: up to three writes that find no free slot, and one read.
LOOK_UP_SECONDS = 0.03
WAIT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Setting:
    """The arrival rate and the user's settings."""

    tasks_a_second: float
    callback_rate: int = 100
    archive_concurrency: int = 5
    account_concurrency: int = 1000
    waits_a_second: int = 0  # requests to the tasks API with `wait=20`
    max_waiting: int | None = 2  # requests that may wait at the same time; None: no limit
    has_poll_queue: bool = True  # False: DispatchChanges starts an execution for new tasks, as it did until 0.1.0
    seconds: float = field(default_factory=lambda: SECONDS)


@dataclass(slots=True)
class Journey:
    """The times at which a change passed each stage."""

    reported_at: float | None  # None for a registration
    written_at: float = 0.0
    seen_at: float = 0.0  # by Lambda's reader of the shard
    read_at: float = 0.0  # after the batching window
    queued_at: float = 0.0

    def stages(self, started_at: float) -> dict[str, float]:
        """Returns the seconds of every stage before archiving, which started at this time."""
        assert self.reported_at is not None
        moments = (self.reported_at, self.written_at, self.seen_at, self.read_at, self.queued_at, started_at)
        durations = (after - before for before, after in pairwise(moments))
        return dict(zip(STAGES, durations, strict=False))


@dataclass(slots=True)
class SimulationResult:
    """The result of a simulation."""

    setting: Setting
    throttled: int = 0  # callbacks that the API answered with 429
    not_run: int = 0  # callbacks for which the account had no concurrent execution
    waited: int = 0  # requests to the tasks API that waited for their task
    refused: int = 0  # writes that DynamoDB did not accept in time
    latencies: list[float] = field(default_factory=list)  # from callback to object, in seconds
    stages: list[dict[str, float]] = field(default_factory=list)  # of each of them
    peak_concurrency: int = 0
    longest_queue: int = 0
    last_second: float = 0.0  # time at which everything was archived

    def percentile(self, share: float) -> float:
        """Returns the seconds within which this share of tasks was archived."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Partition:
    """Processes write units in sequence."""

    def __init__(self) -> None:
        self._free_at = 0.0

    def wait(self, now: float, units: int) -> float:
        """Returns the seconds until these units are written."""
        self._free_at = max(self._free_at, now) + units / WRITE_UNITS_A_SECOND
        return self._free_at - now

    def backlog(self, now: float) -> float:
        """Returns the seconds of queued work."""
        return max(0.0, self._free_at - now)


@dataclass(slots=True)
class Shard:
    """A shard of the stream, with the one invocation that reads it."""

    phase: float  # of Lambda's polls
    waiting: deque[Journey] = field(default_factory=deque)
    is_busy: bool = False
    wakes_at: float | None = None


class Simulation:
    """One simulation run."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.outcome = SimulationResult(setting)
        self._random = Random(1)
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._now = 0.0
        # byStatus by status; byArrival.
        self._index = {name: Partition() for name in ("PENDING", "SUCCEEDED", "ARCHIVED", "feed")}
        self._table = [Partition() for _ in range(SHARDS)]
        self._shards = [Shard(number / SHARDS * STREAM_POLL_SECONDS) for number in range(SHARDS)]
        self._queue: deque[Journey] = deque()
        self._archiving = 0
        self._dispatching = 0
        self._receiving = 0
        self._waiting = 0
        self._looking_up = 0
        self._tokens, self._tokens_at = 2.0 * setting.callback_rate, 0.0

    def run(self) -> SimulationResult:
        """Simulates all arrivals within the setting's seconds, until the last of them has been processed."""
        for number in range(int(self.setting.tasks_a_second * self.setting.seconds)):
            moment = number / self.setting.tasks_a_second
            self._at(moment, self._register)
            # Evenly spread: each report falls between two registrations.
            self._at(moment + 0.5 / self.setting.tasks_a_second, self._callback)
        moment = 0.0
        while (
            self.setting.waits_a_second
            and (moment := moment + self._random.expovariate(self.setting.waits_a_second)) < self.setting.seconds
        ):
            self._at(moment, self._wait)
        while self._events:
            self._now, _, work, arguments = heapq.heappop(self._events)
            work(*arguments)
        return self.outcome

    def _at(self, moment: float, work: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (moment, next(self._order), work, arguments))

    def _write(self, table: int, **units: int) -> float | None:
        """Returns the seconds of a write, or None if it is rejected: full indexes block the table."""
        partition = self._random.randrange(SHARDS)
        places = [(self._table[partition], table), *((self._index[name], needed) for name, needed in units.items())]
        if max(place.backlog(self._now) for place, _ in places) > LONGEST_WRITE_SECONDS:
            self.outcome.refused += 1
            return None
        return max(place.wait(self._now, needed) for place, needed in places)

    def _register(self) -> None:
        waited = self._write(1, PENDING=1, feed=1)
        if waited is not None:
            self._at(self._now + waited, self._written, Journey(None))

    def _callback(self) -> None:
        setting = self.setting
        earned = (self._now - self._tokens_at) * setting.callback_rate
        self._tokens, self._tokens_at = min(2.0 * setting.callback_rate, self._tokens + earned), self._now
        if self._tokens < 1:
            self.outcome.throttled += 1
            return
        self._tokens -= 1
        if not self._has_concurrency():
            self.outcome.not_run += 1
            return
        waited = self._write(1, PENDING=1, SUCCEEDED=1)
        self._receiving += 1
        journey = Journey(self._now) if waited is not None else None
        self._at(self._now + RECEIVE_SECONDS + (waited or 0.0), self._received, journey)

    def _received(self, journey: Journey | None) -> None:
        self._receiving -= 1
        if journey is not None:
            self._written(journey)

    def _has_concurrency(self) -> bool:
        """Returns whether the account has a concurrent execution left, and records the peak of their number."""
        running = self._archiving + self._dispatching + self._receiving + self._waiting + self._looking_up
        self.outcome.peak_concurrency = max(self.outcome.peak_concurrency, running)
        return running < self.setting.account_concurrency

    def _wait(self) -> None:
        """Responds to a request to the tasks API: immediately, or after the longest wait if it may wait."""
        if not self._has_concurrency():
            return
        if self.setting.max_waiting is None or self._waiting < self.setting.max_waiting:
            self.outcome.waited += 1
            self._waiting += 1
            self._at(self._now + WAIT_SECONDS, self._respond, True)
        else:
            self._looking_up += 1
            self._at(self._now + LOOK_UP_SECONDS, self._respond, False)

    def _respond(self, has_waited: bool) -> None:
        if has_waited:
            self._waiting -= 1
        else:
            self._looking_up -= 1
        self._archive()

    def _written(self, journey: Journey) -> None:
        shard = self._random.choice(self._shards)
        journey.written_at = self._now
        polls = ceil((self._now - shard.phase) / STREAM_POLL_SECONDS)
        journey.seen_at = shard.phase + polls * STREAM_POLL_SECONDS
        shard.waiting.append(journey)
        self._at(journey.seen_at, self._read, shard)

    def _read(self, shard: Shard) -> None:
        seen = sum(1 for journey in islice(shard.waiting, STREAM_BATCH) if journey.seen_at <= self._now)
        if shard.is_busy or not seen:
            return
        due = shard.waiting[0].seen_at + STREAM_WINDOW_SECONDS
        if seen < STREAM_BATCH and self._now < due:
            if shard.wakes_at is None or shard.wakes_at < self._now:
                shard.wakes_at = due
                self._at(due, self._read, shard)
            return
        batch = [shard.waiting.popleft() for _ in range(seen)]
        reported = [journey for journey in batch if journey.reported_at is not None]
        queued_at = self._now + HANDLER_SECONDS + SEND_SECONDS * ceil(len(reported) / 10)
        for journey in reported:
            journey.read_at = self._now
            journey.queued_at = queued_at
        shard.is_busy = True
        self._dispatching += 1
        self._at(queued_at, self._queued, reported)
        new = len(batch) - len(reported)
        after = SEND_SECONDS * ceil(new / 10)
        if not self.setting.has_poll_queue:
            after = START_EXECUTION_SECONDS * ceil(new / TASKS_PER_EXECUTION)
        self._at(queued_at + after, self._dispatched, shard)

    def _queued(self, reported: list[Journey]) -> None:
        self._queue.extend(reported)
        self.outcome.longest_queue = max(self.outcome.longest_queue, len(self._queue))
        self._archive()

    def _dispatched(self, shard: Shard) -> None:
        shard.is_busy = False
        self._dispatching -= 1
        self._read(shard)

    def _archive(self) -> None:
        pollers = FIRST_POLLERS + MORE_POLLERS_A_SECOND * self._now
        most = min(self.setting.archive_concurrency, int(pollers), self.setting.account_concurrency - SHARDS * 2)
        while self._queue and self._archiving < most and self._has_concurrency():
            batch = [self._queue.popleft() for _ in range(min(ARCHIVE_BATCH, len(self._queue)))]
            self._archiving += 1
            self._at(self._now + ARCHIVE_SECONDS, self._archived, batch, self._now)

    def _archived(self, batch: list[Journey], started_at: float) -> None:
        for journey in batch:
            waited = self._write(2, SUCCEEDED=1, ARCHIVED=2) or 0.0
            stages = journey.stages(started_at) | ARCHIVE_STAGES
            stages["put"] += waited
            self.outcome.stages.append(stages)
            self.outcome.latencies.append(sum(stages.values()))
        self._archiving -= 1
        self.outcome.last_second = self._now
        self._archive()


SETTINGS = (
    Setting(10, account_concurrency=10),
    Setting(10),
    Setting(100),
    Setting(100, callback_rate=200, archive_concurrency=40),
    Setting(400, callback_rate=1000, archive_concurrency=150),
    Setting(1000),
    Setting(1000, callback_rate=2000, archive_concurrency=300),
)


def measure() -> list[SimulationResult]:
    """Simulates all settings."""
    return [Simulation(setting).run() for setting in SETTINGS]


def main() -> None:
    """Prints the table."""
    print("tasks/s  rate  conc.   429     refused  median  99 %    queue  invocations  done after")  # noqa: T201
    for o in measure():
        s = o.setting
        print(  # noqa: T201
            f"{s.tasks_a_second:7} {s.callback_rate:5} {s.archive_concurrency:6} {o.throttled:6} {o.refused:9} "
            f"{o.percentile(0.5):6.1f}s {o.percentile(0.99):6.1f}s {o.longest_queue:7} {o.peak_concurrency:8} "
            f"{o.last_second:10.0f}s"
        )
        executions = s.tasks_a_second / min(TASKS_PER_EXECUTION, max(1, s.tasks_a_second / SHARDS))
        assert executions < START_EXECUTION_A_SECOND
        assert executions * TRANSITIONS_PER_EXECUTION < TRANSITIONS_A_SECOND


if __name__ == "__main__":
    main()
