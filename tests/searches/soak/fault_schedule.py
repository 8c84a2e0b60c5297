"""Defines the rates of AWS errors, and generates outages of a few seconds and kills of functions from a seed."""

import random
import threading
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tests.searches.soak.aws_faults import Fault, Outage, Rates

if TYPE_CHECKING:
    from local.lambda_.runtime import Function

# Probabilities for each function's calls to a service.
RATES: Rates = {
    "dynamodb": {
        Fault.THROTTLE: 0.02,
        Fault.ERROR: 0.01,
        Fault.ERROR_AFTER: 0.01,
        Fault.CUT: 0.005,
        Fault.CUT_AFTER: 0.01,
        Fault.TIMEOUT_AFTER: 0.002,
        Fault.SLOW: 0.02,
        Fault.KILL: 0.001,
        Fault.KILL_AFTER: 0.002,
        Fault.PARTIAL: 0.05,
    },
    "s3": {
        Fault.THROTTLE: 0.03,
        Fault.ERROR: 0.01,
        Fault.ERROR_AFTER: 0.015,
        Fault.CUT: 0.005,
        Fault.CUT_AFTER: 0.01,
        Fault.TIMEOUT_AFTER: 0.002,
        Fault.SLOW: 0.02,
        Fault.KILL: 0.001,
        Fault.KILL_AFTER: 0.003,
        Fault.CONFLICT: 0.005,
    },
    "sqs": {
        Fault.THROTTLE: 0.03,
        Fault.ERROR: 0.02,
        Fault.ERROR_AFTER: 0.02,
        Fault.CUT: 0.005,
        Fault.CUT_AFTER: 0.01,
        Fault.SLOW: 0.02,
        Fault.KILL: 0.002,
        Fault.KILL_AFTER: 0.004,
        Fault.PARTIAL: 0.05,
    },
    "states": {
        Fault.THROTTLE: 0.05,
        Fault.ERROR: 0.02,
        Fault.ERROR_AFTER: 0.03,
        Fault.CUT: 0.01,
        Fault.CUT_AFTER: 0.02,
        Fault.SLOW: 0.02,
        Fault.KILL: 0.005,
        Fault.KILL_AFTER: 0.01,
    },
    "secretsmanager": {Fault.THROTTLE: 0.05, Fault.ERROR: 0.05, Fault.CUT: 0.02, Fault.SLOW: 0.05},
}
# Probability of six failing calls in a row about one task: more than the retries of one invocation.
STREAK_RATE = 0.01
# Offsets of the functions' clocks, which differ by up to a minute.
CLOCK_SECONDS = {
    "ReceiveCallbackFunction": 30.0,
    "DispatchChangesFunction": -15.0,
    "StartPollingFunction": -30.0,
    "PollTasksFunction": 15.0,
    "ArchiveImagesFunction": -30.0,
}
SECONDS_BETWEEN_KILLS = 5.0
SECONDS_BETWEEN_OUTAGES = 45.0
OUTAGE_SECONDS = (0.5, 4.0)
# Longer than the duration of any soak test.
_MAX_RUN_SECONDS = 2 * 3600


def outages(seed: int) -> list[Outage]:
    """Returns outages of a few seconds, each of a randomly chosen service."""
    rng = random.Random(f"outages/{seed}")
    found, at = [], 0.0
    while at < _MAX_RUN_SECONDS:
        at += rng.expovariate(1 / SECONDS_BETWEEN_OUTAGES)
        found.append(Outage(rng.choice(sorted(RATES)), at, rng.uniform(*OUTAGE_SECONDS)))
    return found


class Killer:
    """Kills running sandboxes at random intervals with SIGKILL, which no signal handler can catch."""

    def __init__(self, seed: int, functions: Mapping[str, "Function"]) -> None:
        self._rng = random.Random(f"kills/{seed}")
        self._functions = functions
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="killer")
        self.kills: Counter[str] = Counter()  # by function

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def kill(self, function: str, sandbox: str) -> None:
        """Kills a sandbox of a function, and counts it if it was running."""
        if self._functions[function].kill(sandbox):
            self.kills[function] += 1

    def _run(self) -> None:
        while not self._stopping.wait(self._rng.expovariate(1 / SECONDS_BETWEEN_KILLS)):
            busy = [(name, sandbox) for name, function in self._functions.items() for sandbox in function.busy()]
            if busy:
                self.kill(*self._rng.choice(busy))
