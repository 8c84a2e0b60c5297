"""The operator's page has every alarm, names commands and tests that exist, and its figures are correct."""

import re
from pathlib import Path

import pytest

from catchlight_cli.commands import COMMANDS
from tests.unit.template.emitted_metrics import emitted_metrics
from tests.unit.template.expanded import RAW, deployed
from tests.unit.template.test_alarms import ALARMS, watched_by

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/operating.md").read_text()
SHOWN_BY = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


def test_every_alarm_has_a_row() -> None:
    explained = re.findall(r"^\| `(\w+Alarm)` \|", PAGE, re.MULTILINE)

    assert sorted(explained) == sorted(ALARMS)


def test_a_row_has_meaning_checks_and_actions() -> None:
    for row in re.findall(r"^\| `\w+Alarm` \|.*$", PAGE, re.MULTILINE):
        _, alarm, *cells, _ = row.split("|")
        assert len(cells) == 3, alarm
        assert all(len(cell.strip()) > 15 for cell in cells), alarm


@pytest.mark.parametrize("name", ALARMS)
def test_the_commands_of_an_alarm_are_those_of_its_row(name: str) -> None:
    command = r"catchlight [a-z-]+(?: --(?:kind|older-than) [a-z0-9-]+)?"
    (row,) = re.findall(rf"^\| `{name}` \|.*$", PAGE, re.MULTILINE)

    assert set(re.findall(command, ALARMS[name]["AlarmDescription"])) <= set(re.findall(command, row))


@pytest.mark.parametrize(("module", "test"), SHOWN_BY)
def test_the_named_tests_exist(module: str, test: str) -> None:
    assert f"def {test}(" in (REPOSITORY / module).read_text()


PARTS = (
    "S3",
    "DynamoDB",
    "SQS",
    "Step Functions",
    "Lambda",
    "Secrets Manager",
    "EventBridge",
    "the provider's API",
)


@pytest.mark.parametrize("length", ["5 minutes", "hours"])
@pytest.mark.parametrize("part", PARTS)
def test_each_outage_has_a_row_with_effect_repair_and_tests(part: str, length: str) -> None:
    (row,) = re.findall(rf"^\| {part} \| {length} \|(.*)\|$", PAGE, re.MULTILINE)
    happens, repairs, shown_by = row.split(" | ")

    assert len(happens) > 20
    assert repairs.startswith("by itself")
    assert length == "hours" or repairs == "by itself"
    assert re.search(r"`tests/[\w/]+\.py::\w+`", shown_by)


def test_every_promise_names_a_test() -> None:
    _, _, promises = PAGE.partition("## What is promised")
    promises, _, _ = promises.partition("Those four")
    rows = [row for row in re.findall(r"^\| .*$", promises, re.MULTILINE) if not row.startswith(("| fault", "| part"))]

    assert len(rows) >= 25
    for row in rows:
        assert "::" in row


@pytest.mark.parametrize(
    "text", [pytest.param(PAGE, id="page"), *(alarm["AlarmDescription"] for alarm in ALARMS.values())]
)
def test_named_commands_exist(text: str) -> None:
    named = set(re.findall(r"\bcatchlight ([a-z-]+)\b(?! STACK)", text))

    assert named <= {command.name for command in COMMANDS}


def test_named_parameters_and_metrics_exist() -> None:
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`", PAGE)) - ALARMS.keys() - RAW["Outputs"].keys()

    assert named <= RAW["Parameters"].keys() | emitted_metrics().keys()


def test_the_numbers_of_alarms_and_metrics_are_correct() -> None:
    alarms, metrics = re.findall(r"^(\d+) alarms look at (\d+) metrics", PAGE, re.MULTILINE)[0]
    (own,) = re.findall(r"there are (\d+), and those by provider", PAGE)

    usual = {name: alarm for name, alarm in ALARMS.items() if name in deployed(WebhookUrl="")}
    of_webhooks = [alarm for name, alarm in ALARMS.items() if name not in usual]
    emitted = {name for name in emitted_metrics() if not name.startswith("Webhooks")}
    assert int(alarms) == len(usual)
    assert int(metrics) == sum(len(list(watched_by(alarm))) for alarm in usual.values())
    assert int(own) == len(emitted)
    more = re.findall(r"`WebhookUrl` adds (\d+) alarms on (\d+) metrics, (\d+) metrics of its own", PAGE)
    assert [tuple(map(int, figures)) for figures in more] == [
        (
            len(of_webhooks),
            sum(len(list(watched_by(alarm))) for alarm in of_webhooks),
            len(emitted_metrics().keys() - emitted),
        )
    ]


def test_the_alarms_of_essential_monitoring_are_named_and_counted() -> None:
    (text,) = re.findall(r"What stays are (.*?)\. A failure", PAGE, re.DOTALL)
    alarms, metrics, names = re.fullmatch(r"(\d+) alarms, on (\d+) metrics, (.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    created = deployed(Monitoring="Essential", WebhookUrl="").keys() & ALARMS.keys()

    assert set(re.findall(r"`(\w+)`", names)) == created
    assert int(alarms) == len(created)
    assert int(metrics) == sum(len(list(watched_by(ALARMS[name]))) for name in created)
