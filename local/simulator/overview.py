"""Builds the simulator's start page: the available scenarios, and the tasks with their polls and deliveries."""

import time
from collections import Counter
from typing import Any

from local.simulator.scenarios import SCENARIOS
from local.simulator.services import SimulatedServices


def overview(services: SimulatedServices) -> dict[str, Any]:
    """Returns an example request, base URLs, scenarios, and all tasks with polls and deliveries, newest first."""
    now = time.time()
    polls = Counter((poll.provider, task_id) for poll in services.polls for task_id in poll.task_ids)
    deliveries: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for sent in services.deliveries:
        entry = {
            "attempt": sent.attempt,
            "status": sent.status,
            "seconds": round(sent.seconds, 3),
            "error": sent.error,
        }
        deliveries.setdefault((sent.provider, sent.task_id), []).append(entry)
    return {
        "try": (
            f"curl -X POST {services.provider_urls['flux-kontext']}/api/v1/flux/kontext/generate"
            " -H 'Authorization: Bearer any' -H 'Content-Type: application/json' -H 'X-Simulate: success'"
            """ -d '{"prompt": "a white siamese cat", "callBackUrl": "YOUR CALLBACK URL"}'"""
        ),
        "providers": services.provider_urls,
        "scenarios": {
            scenario.name: f"{scenario.description} ({', '.join(scenario.providers)})"
            for scenario in SCENARIOS.values()
        },
        "timeScale": services.time_scale,
        "outstandingCallbacks": services.outstanding_callbacks,
        "tasks": [
            {
                "provider": task.provider,
                "taskId": task.task_id,
                "scenario": task.scenario.name,
                "outcome": task.outcome_at(now) or "running",
                "images": [image.url for image in task.images],
                "polls": polls[task.provider, task.task_id],
                "deliveries": deliveries.get((task.provider, task.task_id), []),
            }
            for task in reversed(services.tasks)
        ],
    }
