"""The cost of forged callbacks is bounded, as docs/security.md says."""

from dataclasses import astuple

import pytest

from tests.benchmarks.forgeries import FORGERIES, GB, Forgery, cost, dollars_per_month
from tests.integration.conftest import REPOSITORY

HEADING = "## What forged callbacks cost"
# The page gives bounds in round numbers. A bound that is much higher than the cost would hide a change.
MAX_ROUNDING = 1.3


def documented() -> dict[str, list[float]]:
    """Returns the figures in the page's table, by the kind of callback."""
    section = (REPOSITORY / "docs/security.md").read_text().split(HEADING)[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {name: [float(figure.replace(",", "")) for figure in figures] for name, *figures in rows[2:]}


def test_docs_security_lists_every_kind_of_forged_callback() -> None:
    assert [*documented()] == [forgery.name for forgery in FORGERIES]


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.name)
def test_the_cost_of_a_thousand_forged_callbacks_is_as_documented(forgery: Forgery) -> None:
    found = cost(forgery)
    computed = [
        found.transitions,
        found.provider_requests,
        found.writes,
        found.object_bytes / GB,
        found.item_bytes / 1e6,
        found.dollars,
        dollars_per_month(found),
    ]

    for figure, bound in zip(computed, documented()[forgery.name], strict=True):
        assert figure <= bound <= max(figure * MAX_ROUNDING, figure + 0.01), (computed, astuple(found))


def test_twenty_forgeries_of_one_task_start_one_execution() -> None:
    (forgery,) = (forgery for forgery in FORGERIES if forgery.is_one_task)

    assert (forgery.callbacks, cost(forgery).executions) == (20, 1)
