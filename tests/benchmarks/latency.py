"""Measures the time from a callback to the object in the bucket, in total and by stage.

    make bench FOR=latency

Simulated with the limits of AWS, compared with the former design, in which DispatchChanges started an execution for
new tasks instead of queueing them; then measured on the local stack. `python -m tests.benchmarks.latency` measures the
local stack of the current folder only, so that it can be run in a checkout of another version.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import escape
from statistics import mean, quantiles

from tests.benchmarks.bars import FAINT, INK, WIDTH
from tests.benchmarks.figures import Figure, Goal
from tests.benchmarks.scale import a_stack
from tests.benchmarks.scale_simulation import STAGES, Setting, Simulation, SimulationResult

# Evenly spread: a million tasks a month, one every 2.6 s; and three rates of busy stacks.
SETTINGS = {
    "a million tasks a month": Setting(1_000_000 / (30 * 86_400), seconds=3600),
    "10 tasks a second": Setting(10),
    "100 tasks a second": Setting(100, callback_rate=200, archive_concurrency=40),
    "400 tasks a second": Setting(400, callback_rate=1000, archive_concurrency=150),
}
# The simulation is deterministic: a difference of 5 % is not noise.
GOAL = Goal(1.05)
LOCAL_OBJECTS = 100

STAGE_TITLES = {
    "callback": "write of the callback",
    "stream": "until Lambda reads the stream",
    "window": "batching window of the stream",
    "dispatch": "DispatchChanges",
    "queue": "archive queue",
    "confirmation": "confirmation by the provider",
    "fetch": "download and upload",
    "put": "end of the upload, writes",
}
COLOURS = ("#0f766e", "#7dd3fc", "#2563eb", "#f59e0b", "#dc2626", "#a78bfa", "#22c55e", "#94a3b8")


def simulated() -> Iterator[tuple[str, SimulationResult, SimulationResult]]:
    """Yields the name of each setting with its outcome now and its outcome with the former design."""
    for name, setting in SETTINGS.items():
        yield name, Simulation(setting).run(), Simulation(replace(setting, has_poll_queue=False)).run()


def local_percentiles() -> tuple[float, float]:
    """Returns the median and the 99th percentile in seconds, for tasks that run on the local stack one at a time."""
    with a_stack() as stack:
        stack.registered_to_object()
        seconds = [stack.registered_to_object() / 1000 for _ in range(LOCAL_OBJECTS)]
    percentiles = quantiles(seconds, n=100, method="inclusive")
    return percentiles[49], percentiles[98]


def measure() -> list[Figure]:
    """Simulates AWS and measures the local stack."""
    figures = []
    for name, now, before in simulated():
        for label, share in (("median", 0.5), ("99 %", 0.99)):
            mine, theirs = now.percentile(share), before.percentile(share)
            peer = "an execution for each task"
            figures.append(Figure(f"simulated, {name}, {label}", mine, "s", peer, theirs, mine / theirs, GOAL))
    for label, seconds in zip(("median", "99 %"), local_percentiles(), strict=True):
        figures.append(Figure(f"local stack, one task at a time, {label}", seconds, "s"))
    return figures


def draw(_: Sequence[Figure]) -> dict[str, str]:
    """Draws the mean seconds of each stage, now and with the former design."""
    rows = [
        (f"{name}{suffix}", outcome)
        for name, now, before in simulated()
        for suffix, outcome in (("", now), (", before", before))
    ]
    return {"latency": stages_picture("From the callback to the object: seconds in each stage", rows)}


def stages_picture(title: str, rows: Sequence[tuple[str, SimulationResult]]) -> str:
    """Returns stacked bars of the mean seconds in each stage, with marks at the median and at 99 %."""
    left, right, top, bar, gap = 230, 150, 92, 20, 12
    longest = max(outcome.percentile(0.99) for _, outcome in rows)
    scale = (WIDTH - left - right) / longest
    height = top + len(rows) * (bar + gap) + 14
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    parts = [
        f'{svg} font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="15" font-weight="600" fill="{INK}">{escape(title)}</text>',
    ]
    for number, stage in enumerate(STAGES):
        column, row = 16 + number % 4 * 220, 46 + number // 4 * 20
        parts.append(f'<rect x="{column}" y="{row - 10}" width="12" height="12" fill="{COLOURS[number]}"/>')
        parts.append(f'<text x="{column + 18}" y="{row}" fill="{INK}">{escape(STAGE_TITLES[stage])}</text>')
    for number, (name, outcome) in enumerate(rows):
        y = top + number * (bar + gap)
        x = float(left)
        parts.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end" fill="{INK}">{escape(name)}</text>')
        for stage, colour in zip(STAGES, COLOURS, strict=True):
            width = mean(stages[stage] for stages in outcome.stages) * scale
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{bar}" fill="{colour}"/>')
            x += width
        for share in (0.5, 0.99):
            mark = left + outcome.percentile(share) * scale
            parts.append(f'<path d="M{mark:.1f} {y - 3}v{bar + 6}" stroke="{INK}" stroke-width="2"/>')
        text = f"{outcome.percentile(0.5):.2f} s, 99 % {outcome.percentile(0.99):.2f} s"
        parts.append(f'<text x="{WIDTH - right + 8}" y="{y + 14}" fill="{FAINT}">{text}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    print("median {:.3f} s, 99 % {:.3f} s".format(*local_percentiles()), file=sys.stderr)  # noqa: T201
