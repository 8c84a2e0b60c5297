"""Injects faults that last for minutes: outages, throttling by Lambda, a lagging stream. Also aborts executions.

The minutes are simulated; the run's time scale shortens them.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from moto.dynamodb.models.table import StreamShard

from local.lambda_.runtime import Function, TooManyRequestsError
from local.lambda_.runtime_api import InvocationResult
from local.moto.patches import dynamodb as moto_dynamodb
from tests.searches.soak.aws_faults import AwsFaults

AWS_SERVICES = ("dynamodb", "s3", "sqs", "states", "secretsmanager")
PROVIDERS, LAMBDA, STREAM, ABORTED = (
    "outage of the providers",
    "throttling by Lambda",
    "lag of the stream",
    "aborted execution",
)
KINDS = (*AWS_SERVICES, PROVIDERS, LAMBDA, STREAM, ABORTED)
MINUTES = (3.0, 10.0)
# Polling gives up after 15 minutes, some of which other faults may already have used.
PROVIDER_MINUTES = (3.0, 5.0)
MINUTES_BETWEEN = (8.0, 16.0)


class DisruptionSchedule:
    """Injects one kind of disruption at a time, all kinds equally often, in a random order that depends on the seed."""

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
        # Another string would change the schedule of every seed.
        self._rng = random.Random(f"weather/{seed}")
        self._minute = 60 * time_scale
        self._faults = faults
        self._set_providers_out = set_providers_out
        self._abort_execution = abort_execution
        self._current: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="disruptions")
        self.injected: Counter[str] = Counter()  # by kind

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the current disruption and the schedule."""
        self._stopping.set()
        self._thread.join()

    def set(self, kind: str | None) -> None:
        """Starts a disruption of this kind and ends the one before it; None only ends it."""
        self._current = kind
        self._faults.set_out(kind if kind in AWS_SERVICES else None)
        self._set_providers_out(kind == PROVIDERS)

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Patches Lambda to throttle, and the stream to withhold its records, during the disruptions of these kinds."""
        invoke, wait_for_records = Function.invoke, moto_dynamodb.wait_for_records

        def invoke_or_throttle(function: Function, payload: bytes) -> InvocationResult:
            if self._current == LAMBDA:
                raise TooManyRequestsError("throttled by an injected disruption")
            return invoke(function, payload)

        def wait_or_lag(shard: StreamShard, known: int, timeout: float) -> bool:
            if self._current == STREAM:
                self._stopping.wait(timeout)
                return False
            return wait_for_records(shard, known, timeout)

        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(Function, "invoke", invoke_or_throttle))
            stack.enter_context(mock.patch.object(moto_dynamodb, "wait_for_records", wait_or_lag))
            yield

    def _run(self) -> None:
        while not self._stopping.is_set():
            for kind in self._rng.sample(KINDS, len(KINDS)):
                if self._stopping.wait(self._rng.uniform(*MINUTES_BETWEEN) * self._minute):
                    return
                self._inject(kind)

    def _inject(self, kind: str) -> None:
        if kind == ABORTED:
            self.injected[kind] += self._abort_execution()
            return
        minutes = self._rng.uniform(*(PROVIDER_MINUTES if kind == PROVIDERS else MINUTES))
        self.injected[kind] += 1
        self.set(kind)
        self._stopping.wait(minutes * self._minute)
        self.set(None)
