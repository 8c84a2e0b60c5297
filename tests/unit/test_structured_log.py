"""Log lines and metrics, held to those of Powertools, which the other functions write: one query finds both."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.observability.metrics import Unit, metrics_by
from catchlight.observability.structured_log import StructuredLog

# When and where it was written, and the traceback taken apart into what `exception` says already.
OWN = {"timestamp", "location", "stack_trace"}

Writes = Callable[[Any], object]


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.split("\n") if line]


def ours(write: Writes, context: LambdaContext, *, invocations: int = 1) -> None:
    log = StructuredLog()

    @log.names_invocations
    def handler(event: dict[str, Any], context: LambdaContext) -> None:
        write(log)

    for _ in range(invocations):
        handler({}, context)


def powertools(write: Writes, context: LambdaContext, *, invocations: int = 1) -> None:
    logger = Logger()

    @logger.inject_lambda_context(clear_state=True)
    def handler(event: dict[str, Any], context: LambdaContext) -> None:
        write(logger)

    for _ in range(invocations):
        handler({}, context)


def fail(log: Any) -> None:
    try:
        raise ValueError("bäd")
    except ValueError as exc:
        log.exception("it failed", exc_info=exc, task="x#1")


WRITES: dict[str, Writes] = {
    "info": lambda log: log.info("callback received", task="x#1", count=3, previous_status=None),
    "warning": lambda log: log.warning("callback refused", detail="ünïcode \u2028 and more"),
    "error": lambda log: log.error("kept", images=["a", {"b": 1.5}]),
    "exception": fail,
    "two lines": lambda log: [log.info("one"), log.info("two")],
}


@pytest.mark.parametrize("case", WRITES)
def test_lines_have_the_fields_of_powertools(
    case: str, context: LambdaContext, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1")
    monkeypatch.setattr("aws_lambda_powertools.logging.logger.is_cold_start", True)
    # One for each case: Powertools' loggers of the same service are one, with the first one's stream.
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", case)
    powertools(WRITES[case], context, invocations=2)
    expected = lines_of(capsys)
    assert expected

    ours(WRITES[case], context, invocations=2)
    written = lines_of(capsys)

    assert [line.keys() for line in written] == [line.keys() - {"stack_trace"} for line in expected]
    for line in (*written, *expected):
        for name in OWN:
            line.pop(name, None)
    assert written == expected


def test_a_line_says_where_it_was_written_and_when(context: LambdaContext, capsys: pytest.CaptureFixture[str]) -> None:
    ours(fail, context)

    (line,) = lines_of(capsys)
    assert line["location"] == f"fail:{fail.__code__.co_firstlineno + 4}"
    assert len(line["timestamp"]) == len("2026-11-21 08:30:55,401+0000")


def test_only_what_comes_before_the_answer_to_the_first_is_a_cold_start(
    context: LambdaContext, capsys: pytest.CaptureFixture[str]
) -> None:
    ours(WRITES["info"], context, invocations=3)

    assert [line["cold_start"] for line in lines_of(capsys)] == [True, False, False]


@pytest.mark.parametrize(
    ("level", "written"),
    [("DEBUG", 3), ("INFO", 3), ("warning", 2), ("ERROR", 1), ("CRITICAL", 0), ("nonsense", 3)],
)
def test_the_log_level_is_kept(
    level: str, written: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", level)
    log = StructuredLog()

    log.info("one")
    log.warning("two")
    log.error("three")

    assert len(lines_of(capsys)) == written


# ------------------------------------------------------------------------------------------------ metrics

COUNTED = [("TasksSeen", "Count", 1), ("TasksSeen", "Count", 2), ("Took", "Seconds", 1.5), ("Read", "Bytes", 7)]


@pytest.mark.parametrize("dimension", [{}, {"provider": "acedata"}])
def test_metrics_are_written_as_powertools_writes_them(
    dimension: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = EphemeralMetrics()
    for name, unit, value in COUNTED:
        theirs.add_metric(name, MetricUnit(unit), value)
    if dimension:
        theirs.add_dimensions(service=theirs.service or "", **dimension)
    theirs.flush_metrics()
    (expected,) = lines_of(capsys)

    with metrics_by(**dimension) as metrics:
        for name, unit, value in COUNTED:
            metrics.add_metric(name, Unit(unit), value)
    (written,) = lines_of(capsys)

    assert abs(written["_aws"].pop("Timestamp") - expected["_aws"].pop("Timestamp")) < 60_000
    assert written == expected


def test_nothing_counted_is_nothing_written(capsys: pytest.CaptureFixture[str]) -> None:
    with metrics_by(provider="acedata"):
        pass

    assert lines_of(capsys) == []


def test_what_was_counted_before_an_error_counts(capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(ValueError), metrics_by() as metrics:
        metrics.add_metric("TasksSeen", Unit.COUNT, 1)
        raise ValueError

    assert [line["TasksSeen"] for line in lines_of(capsys)] == [[1.0]]
