"""Measures the CPU time of a callback in a warm function, compared with the bare write and usual alternatives.

Lambda bills duration, and a function with 512 MB has a third of a CPU, so CPU time lengthens the duration.
"""

import copy
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from tests.benchmarks import deployed, web_peer
from tests.benchmarks.aws_stand_in import stand_in
from tests.benchmarks.figures import Figure, Goal, Samples, compared
from tests.benchmarks.sandbox import ANSWERS, REPEATED, Sandbox, a_callback

BLOCKS, ANSWERS_PER_BLOCK = 20, 100  # 2,000 of each, in turns
GOAL = Goal(1.25)


class Peer(Protocol):
    """A receiver whose CPU time can be measured."""

    def cpu_seconds(self, callbacks: int) -> float:
        """Returns the CPU time per callback, over this number of callbacks."""


def measure() -> list[Figure]:
    """Measures the CPU time of callbacks with new reports, and of repeated ones."""
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder, scratch = deployed.lay_out(), Path(temporary)
        layer, runtime = str(folder / "opt" / "python"), str(folder / "var" / "runtime")
        ours = [str(folder / "task" / "ReceiveCallbackFunction"), layer]
        floors = Path(__file__).with_name("floors")
        written: dict[str, Any] = {}

        def record(request: dict[str, Any]) -> Any:
            written.setdefault(request["Key"].get("task", {}).get("S", "other table"), copy.deepcopy(request))
            return ANSWERS["UpdateItem"](request)

        aws = stack.enter_context(stand_in(scratch, {**ANSWERS, "UpdateItem": record}))
        for task_id in ("task12345", REPEATED):
            Sandbox(ours, a_callback(task_id)).start(aws, runtime)
        sandboxes = {
            "new result": Sandbox(ours, a_callback()),
            "repeated": Sandbox(ours, a_callback(REPEATED)),
            "same write": Sandbox([str(floors / "same_write")], written["flux-kontext#task12345"]),
            "same write, refused": Sandbox([str(floors / "same_write")], written[f"flux-kontext#{REPEATED}"]),
            "smallest write": Sandbox([str(floors / "callback")], a_callback()),
            "powertools": Sandbox([str(floors / "powertools"), layer], a_callback()),
        }
        peers: dict[str, Peer | None] = {
            name: stack.enter_context(sandbox.warm(aws, runtime)) for name, sandbox in sandboxes.items()
        }
        peers["flask"] = stack.enter_context(web_peer.flask())
        peers["flask, sqlite"] = stack.enter_context(web_peer.flask(str(scratch / "tasks.sqlite")))
        peers["express"] = stack.enter_context(web_peer.express(scratch))
        available = {name: peer for name, peer in peers.items() if peer}
        for peer in available.values():
            peer.cpu_seconds(ANSWERS_PER_BLOCK)
        taken: dict[str, list[float]] = {name: [] for name in available}
        for _ in range(BLOCKS):
            for name, peer in available.items():
                taken[name].append(peer.cpu_seconds(ANSWERS_PER_BLOCK) * 1e6)
    return _figures({name: Samples(values) for name, values in taken.items()})


def _figures(taken: dict[str, Samples]) -> list[Figure]:
    def compare(
        peer: str, label_of_peer: str, goal: Goal | None = None, name: str = "new result", label: str = ""
    ) -> Figure:
        return compared(label or "callback with a new result", taken[name], "µs", label_of_peer, taken[peer], goal)

    figures = [
        compare("same write", "bare boto3, the same write", GOAL),
        compare("smallest write", "bare boto3 handler, the smallest write"),
        compare(
            "same write, refused", "bare boto3, the same write, condition failed", GOAL, "repeated", "repeated callback"
        ),
        compare("powertools", "Powertools' idempotency, three calls"),
        compare("flask", "documented Flask receiver, which stores nothing"),
        compare("flask, sqlite", "the same with SQLite"),
    ]
    if "express" in taken:
        figures.append(compare("express", "documented Express receiver, which stores nothing"))
    else:
        figures.append(
            Figure("documented Express receiver", float("nan"), "µs", note="not measured: it could not be installed")
        )
    return figures
