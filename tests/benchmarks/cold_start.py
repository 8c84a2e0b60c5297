"""Measures cold starts: from a sandbox without loaded code to the first response, compared with minimal handlers.

Every measurement starts an interpreter in an environment like Lambda's: the built folders, files dated 1980, read-only,
and Lambda's own runtime client loaded before the measurement. AWS is simulated on loopback, over TLS, with its real
host names.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import deployed
from tests.benchmarks.aws_stand_in import stand_in
from tests.benchmarks.figures import Figure, Goal, Samples, compared
from tests.benchmarks.import_tree import Node, import_tree, read_import_times
from tests.benchmarks.sandbox import ANSWERS, Sandbox, a_callback, an_event

PROCESSES = 15


def measure() -> list[Figure]:
    """Measures cold starts of the three functions whose latency matters, in turns with their minimal handlers."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, scratch = deployed.lay_out(), Path(temporary)
        layer, runtime = str(folder / "opt" / "python"), str(folder / "var" / "runtime")
        bare = str(deployed.without_bytecode(folder / "opt" / "python", scratch / "python"))
        bare_task = str(deployed.without_bytecode(folder / "task" / "ReceiveCallbackFunction", scratch / "task"))
        floors = Path(__file__).with_name("floors")

        def task(name: str) -> str:
            return str(folder / "task" / name)

        poll = {"tasks": ["flux-kontext#task12345"], "waitSeconds": 60, "waitedSeconds": 0}
        archive = {"Records": an_event("sqs_archive.json")["Records"][:1]}
        sandboxes = {
            "callback": Sandbox([task("ReceiveCallbackFunction"), layer], a_callback()),
            "callback floor": Sandbox([str(floors / "callback")], a_callback()),
            "callback floor, quick": Sandbox([str(floors / "callback_quick"), layer], a_callback()),
            "callback, no bytecode": Sandbox([bare_task, bare], a_callback()),
            "poller": Sandbox([task("PollTasksFunction"), layer], poll),
            "poller floor": Sandbox([str(floors / "poller")], poll),
            "archiver": Sandbox([task("ArchiveImagesFunction"), layer], archive),
            "archiver floor": Sandbox([str(floors / "archiver")], archive),
        }
        with stand_in(scratch, ANSWERS) as aws:
            # One run each, so that the disk cache is equally warm for all measurements.
            for sandbox in sandboxes.values():
                sandbox.start(aws, runtime)
            taken: dict[str, list[dict[str, Any]]] = {name: [] for name in sandboxes}
            for _ in range(PROCESSES):
                for name, sandbox in sandboxes.items():
                    taken[name].append(sandbox.start(aws, runtime)[0])
            _, import_times = sandboxes["callback"].start(aws, runtime, "-X", "importtime")
        _import_tree.append(read_import_times(import_times))
        layer_bytes = deployed.packed_bytes(deployed.BUILD / "CatchlightLayer")
    return _figures(taken, layer_bytes)


def draw(figures: Sequence[Figure]) -> dict[str, str]:
    """Draws the callback function's import tree."""
    return {"import_tree": import_tree("Imports of ReceiveCallback before its first response", _import_tree[-1])}


_import_tree: list[Node] = []


def _figures(taken: Mapping[str, Sequence[Mapping[str, float]]], layer_bytes: int) -> list[Figure]:
    def samples(name: str, measurement: str = "all") -> Samples:
        return Samples([each[measurement] for each in taken[name]])

    def compare(
        name: str, floor: str, peer: str, goal: Goal | None = None, measurement: str = "all", label: str = ""
    ) -> Figure:
        return compared(label or name, samples(name, measurement), "ms", peer, samples(floor, measurement), goal)

    bare = "bare boto3 handler"
    return [
        compare("callback", "callback floor", bare, Goal(1.3), label="callback, to the first answer"),
        compare("callback", "callback floor", bare, Goal(1.3), measurement="cpu", label="callback, CPU time"),
        compare(
            "callback",
            "callback floor, quick",
            "bare handler, same optimizations",
            label="callback, to the first answer",
        ),
        compare("callback, no bytecode", "callback floor", bare, label="callback, `sam build` without bytecode"),
        compare("poller", "poller floor", "bare boto3 and httpx", Goal(1.5), label="poller, to the first answer"),
        compare("archiver", "archiver floor", "bare boto3 and httpx", Goal(1.5), label="archiver, to the first answer"),
        Figure("callback, imports alone", samples("callback", "import").median, "ms"),
        Figure("callback, first answer alone", samples("callback", "first_answer").median, "ms"),
        Figure("layer, packed", layer_bytes / 1e6, "MB"),
    ]
