"""Plays what lasts for minutes: outages, throttling of Lambda, a stream that lags, executions that are aborted.

The minutes are simulated: the run's time scale makes them shorter.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from moto.dynamodb.models.table import StreamShard

from local.lambda_.runtime import Function, TooManyRequestsError
from local.lambda_.runtime_api import Outcome
from local.moto import patches
from tests.searches.soak.aws_faults import AwsFaults

AWS_SERVICES = ("dynamodb", "s3", "sqs", "states", "secretsmanager")
PROVIDERS, LAMBDA, STREAM, ABORTED = "the image services", "Lambda", "the stream", "an execution"
KINDS = (*AWS_SERVICES, PROVIDERS, LAMBDA, STREAM, ABORTED)
MINUTES = (3.0, 10.0)
# Polling gives up after 15 minutes, and may have met other faults before.
PROVIDER_MINUTES = (3.0, 5.0)
MINUTES_BETWEEN = (8.0, 16.0)


class Weather:
    """Plays one kind after the other, each as often as the others, in a random order that depends on the seed."""

    def __init__(
        self,
        seed: int,
        time_scale: float,
        faults: AwsFaults,
        *,
        set_providers_out: Callable[[bool], None],
        abort_execution: Callable[[], bool],
    ) -> None:
        """`abort_execution` aborts one running execution and returns whether there was one."""
        self._rng = random.Random(f"weather/{seed}")
        self._minute = 60 * time_scale
        self._faults = faults
        self._set_providers_out = set_providers_out
        self._abort_execution = abort_execution
        self._now: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="weather")
        self.played: Counter[str] = Counter()  # by kind

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends what is being played."""
        self._stopping.set()
        self._thread.join()

    def set(self, kind: str | None) -> None:
        """Lets one kind last until the next call; None: nothing."""
        self._now = kind
        self._faults.set_out(kind if kind in AWS_SERVICES else None)
        self._set_providers_out(kind == PROVIDERS)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Makes Lambda refuse invocations and the stream withhold its records while the weather says so."""
        invoke, wait_for_records = Function.invoke, patches.wait_for_records

        def throttled(function: Function, payload: bytes) -> Outcome:
            if self._now == LAMBDA:
                raise TooManyRequestsError("throttled by the weather")
            return invoke(function, payload)

        def lagging(shard: StreamShard, known: int, timeout: float) -> bool:
            if self._now == STREAM:
                self._stopping.wait(timeout)
                return False
            return wait_for_records(shard, known, timeout)

        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(Function, "invoke", throttled))
            stack.enter_context(mock.patch.object(patches, "wait_for_records", lagging))
            yield

    def _run(self) -> None:
        while not self._stopping.is_set():
            for kind in self._rng.sample(KINDS, len(KINDS)):
                if self._stopping.wait(self._rng.uniform(*MINUTES_BETWEEN) * self._minute):
                    return
                self._play(kind)

    def _play(self, kind: str) -> None:
        if kind == ABORTED:
            self.played[kind] += self._abort_execution()
            return
        minutes = self._rng.uniform(*(PROVIDER_MINUTES if kind == PROVIDERS else MINUTES))
        self.played[kind] += 1
        self.set(kind)
        self._stopping.wait(minutes * self._minute)
        self.set(None)
