"""Renders the result of a soak test as one table."""

from collections import Counter

from rich.table import Table

from tests.searches.soak.plans import CallbackFault
from tests.searches.soak.report import Report


def table(report: Report) -> Table:
    """Returns a table of all counts and results."""
    soak = report.soak
    found = Table(title=f"{soak.tasks:,} tasks, seed {soak.seed}", title_justify="left", show_header=False)
    found.add_column()
    found.add_column(justify="right")
    found.add_column(justify="right")

    def add(name: str, count: int, of: int | None = None, *, indent: bool = True) -> None:
        share = f"{count / of:.1%}" if of else ""
        found.add_row(f"  {name}" if indent else name, f"{count:,}", share)

    planned = sum(report.deliveries.values())
    add("Deliveries planned", planned, indent=False)
    for callback_fault, count in report.deliveries.items():
        add(callback_fault, count, planned)
    add("deliveries with a fault", planned - report.deliveries[CallbackFault.NONE], planned)
    add("Requests with callbacks, including retries", report.requests.total(), indent=False)
    for response, count in report.requests.most_common():
        add(f"response {response}" if response.isdecimal() else response, count, report.requests.total())
    found.add_section()
    add("Polls", sum(report.polls.values()), indent=False)
    for name, count in sorted(report.polls.items(), key=lambda item: -item[1]):
        add(name, count, sum(report.polls.values()))
    add("Requests for images", report.image_requests, indent=False)
    found.add_section()
    add("AWS calls of functions", report.calls, indent=False)
    by_fault: Counter[str] = Counter()
    for (_, fault), count in report.faults.items():
        by_fault[str(fault)] += count
    for name, count in by_fault.most_common():
        add(name, count, report.calls)
    add("all faults", by_fault.total(), report.calls)
    add("Sandboxes killed", sum(report.kills.values()), indent=False)
    for name, count in sorted(report.kills.items()):
        add(name.removesuffix("Function"), count)
    add("Disruptions of several minutes", sum(report.disruptions.values()), indent=False)
    for name, count in sorted(report.disruptions.items()):
        add(name, count)
    found.add_section()
    add("Tasks after the faults and one reconciliation", soak.tasks, indent=False)
    for name, count in sorted(report.outcomes_before.items(), key=lambda item: -item[1]):
        add(name, count, soak.tasks)
    add("Tasks after one redrive", soak.tasks, indent=False)
    for name, count in sorted(report.outcomes.items(), key=lambda item: -item[1]):
        add(name, count, soak.tasks)
    for name, count in sorted(report.resolved_by.items()):
        add(f"result first reported by {name}", count, soak.tasks)
    found.add_section()
    add("Changes of items checked", report.changes, indent=False)
    add("Acknowledged callbacks checked", report.acknowledged, indent=False)
    add("Events checked", report.events, indent=False)
    add("Objects compared", report.objects, indent=False)
    add("Lost", report.lost, indent=False)
    add("Duplicated", report.duplicated, indent=False)
    add("Not reported", report.unreported, indent=False)
    add("All violations", len(report.violations), indent=False)
    found.add_section()
    found.add_row("Duration", f"{report.seconds / 60:.1f} min", "")
    found.add_row("Memory of the stack's process", f"{report.rss_mb[0]}-{max(report.rss_mb)} MB", "")
    return found
