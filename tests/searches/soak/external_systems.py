"""Simulates providers, users and unauthorised clients in a separate process.

Exchanges JSON lines with its parent process over stdin and stdout; ends when stdin is closed.
"""

import json
import sys
import threading
import time
from typing import Any

from tests.searches.soak.callers import Callers
from tests.searches.soak.planning import plan_task
from tests.searches.soak.provider import Provider

_output = threading.Lock()


def send(**message: Any) -> None:
    with _output:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def main() -> None:
    provider = Provider()
    provider.start()
    send(base_urls=provider.base_urls, image_host=provider.image_host)
    begin = json.loads(sys.stdin.readline())
    seed, time_scale = begin["seed"], begin["time_scale"]
    callers = Callers(begin["stack"], provider.url, time_scale, on_completed=lambda number: send(completed=number))
    for line in sys.stdin:
        message = json.loads(line)
        if "task" in message:
            plan = plan_task(seed, message["task"])
            ends_at = time.time() + plan.ends_after * time_scale
            provider.create(plan, ends_at)
            callers.begin(plan, ends_at)
        elif "is_out" in message:
            provider.is_out = message["is_out"]
        elif "is_outage_over" in message:
            provider.is_outage_over = message["is_outage_over"]
        else:
            send(
                deliveries=[delivery.to_json() for delivery in callers.deliveries],
                provider_reports=[(task, reported.to_json(), at) for (task, reported), at in provider.reports.items()],
                image_requests=provider.image_requests,
                polls=provider.polls,
                errors=callers.errors,
            )
    callers.stop()
    provider.stop()


if __name__ == "__main__":
    main()
