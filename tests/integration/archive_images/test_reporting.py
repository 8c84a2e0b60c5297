"""The log lines and metrics of ArchiveImages."""

from typing import Any

import pytest

from catchlight.errors import SettingsError
from functions.archive_images import app
from tests.canary_secrets import URL_QUERY
from tests.image_server import content, picture, status
from tests.integration.archiver import BUCKET, HOST, TASK, Archiver
from tests.integration.fault_injection import counted, every_aws_fault, every_fault, failing, reported, warned
from tests.integration.functions import metric_lines

PNG, JPEG = picture("PNG"), picture("JPEG")


def test_only_the_malformed_message_is_moved_to_the_dead_letters(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    messages = archiver.receive(TASK, "flux-kontext#other")
    bad = next(message for message in messages if "other" in message["body"])
    bad["body"] = "no JSON"

    assert archiver.handle(messages) == []
    assert archiver.item()["status"] == "ARCHIVED"
    assert archiver.dead_letters() == ["no JSON"]


def test_images_are_counted_by_their_final_state(archiver: Archiver, capsys: pytest.CaptureFixture[str]) -> None:
    archiver.succeed(archiver.serve("a", PNG), archiver.serve("b", JPEG), archiver.serve("c", b"<html>" * 9))

    archiver.run()

    (line,) = metric_lines(capsys)
    assert sorted(line["ArchivedBytes"]) == sorted([float(len(PNG)), float(len(JPEG))])
    assert (sum(line["ImagesArchived"]), sum(line["ImagesRejected"])) == (2, 1)
    assert line["UrlSecondsToExpiry"] == [pytest.approx(86_400, abs=60)] * 2
    assert "ReportToArchiveSeconds" not in line
    assert line["provider"] == "flux-kontext"
    assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"], ["service", "provider"]]


def test_the_time_from_report_to_archive_is_measured(archiver: Archiver, capsys: pytest.CaptureFixture[str]) -> None:
    archiver.succeed(archiver.serve("a", PNG))

    archiver.run()

    (line,) = metric_lines(capsys)
    assert line["ReportToArchiveSeconds"] == [pytest.approx(5, abs=5)]


def test_providers_of_one_batch_are_counted_apart(archiver: Archiver, capsys: pytest.CaptureFixture[str]) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    archiver.succeed(archiver.server.serve("b", PNG, "x.acedata.cloud"), task="acedata#a1")

    archiver.run(TASK, "acedata#a1")

    lines = metric_lines(capsys)
    assert sorted(line["provider"] for line in lines) == ["acedata", "flux-kontext"]
    assert [line["ImagesArchived"] for line in lines] == [[1], [1]]


def test_no_log_line_holds_a_url(archiver: Archiver, caplog: pytest.LogCaptureFixture) -> None:
    archiver.succeed(*[archiver.serve(f"{code}", status(code)) for code in (404, 500)], f"https://x/?{URL_QUERY}")

    archiver.run()

    logged = str([record.__dict__ for record in caplog.records]) + caplog.text
    assert "not archived yet" in logged
    assert URL_QUERY not in logged
    assert f"{HOST}/" not in logged


def test_no_download_starts_without_enough_time_left(archiver: Archiver, monkeypatch: pytest.MonkeyPatch) -> None:
    archiver.succeed(archiver.serve("a.png", content(PNG)))
    with monkeypatch.context() as patch:
        patch.setattr(app, "RESERVED_SECONDS", 10_000)
        assert archiver.run() == [TASK]
    assert archiver.server.requests == []

    assert archiver.run() == []
    assert archiver.states() == ["ARCHIVED"]


# ------------------------------------------------------------------------------------------------ failures are reported


@every_fault
@pytest.mark.parametrize("operation", ["GetSecretValue", "GetItem", "UpdateItem"])
def test_a_failed_message_is_logged_with_its_task_and_counted(
    archiver: Archiver,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    operation: str,
    fault: Exception,
) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    messages = archiver.receive()

    with failing(operation, fault):
        assert archiver.handle(messages) == [messages[0]["messageId"]]

    kind = "KeyError" if isinstance(fault, KeyError) else "StoreUnavailableError"
    assert reported(caplog.records, TASK) == {kind}
    assert counted(capsys) == [kind]
    assert archiver.handle(messages) == []


@every_aws_fault
@pytest.mark.parametrize("operation", ["PutObject", "HeadObject"])
def test_an_image_that_s3_does_not_store_is_logged_with_its_task_and_counted(
    archiver: Archiver,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    operation: str,
    fault: Exception,
) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    if operation == "HeadObject":  # the archiver then reads the metadata of the existing object
        archiver.s3.put_object(Bucket=BUCKET, Key="images/flux-kontext/task12345/result-0.png", Body=PNG)

    with failing(operation, fault):
        assert archiver.run() == [TASK]

    assert warned(caplog.records, TASK) == {"ImageUnavailableError"}
    assert counted(capsys, "ArchivingRetried") == ["flux-kontext"]


def test_a_bug_in_one_image_does_not_prevent_archiving_the_others(
    archiver: Archiver, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    archiver.succeed(archiver.serve("a", PNG), archiver.serve("b", JPEG), archiver.serve("c", PNG))

    with failing("PutObject", KeyError("bug"), when=lambda parameters: "result-1" in parameters["Key"]):
        assert archiver.run() == [TASK]

    assert archiver.states() == ["ARCHIVED", "PENDING", "ARCHIVED"]
    assert reported(caplog.records, TASK) == {"KeyError"}
    assert counted(capsys) == ["KeyError"]


@every_fault
def test_a_visibility_that_cannot_be_changed_is_reported(
    archiver: Archiver, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], fault: Exception
) -> None:
    archiver.succeed(archiver.serve("a", status(503)))

    with failing("ChangeMessageVisibility", fault):
        assert archiver.run() == [TASK]

    assert reported(caplog.records, TASK) == {type(fault).__name__}
    assert counted(capsys) == [type(fault).__name__]


@every_fault
def test_a_message_that_cannot_be_moved_to_the_dead_letters_stays_in_the_queue(
    archiver: Archiver, capsys: pytest.CaptureFixture[str], fault: Exception
) -> None:
    (message,) = archiver.receive()
    message["body"] = "no JSON"

    with failing("SendMessage", fault):
        assert archiver.handle([message]) == [message["messageId"]]

    assert counted(capsys) == ["InvalidMessageError", type(fault).__name__]


@pytest.mark.parametrize(("tries", "delayed"), [(4, []), (5, ["flux-kontext"])])
def test_a_task_is_counted_as_delayed_from_the_fifth_try(
    archiver: Archiver, capsys: pytest.CaptureFixture[str], tries: int, delayed: list[str]
) -> None:
    archiver.succeed(archiver.serve("a", status(503)))

    archiver.run(tries=tries)

    assert counted(capsys, "ArchivingDelayed") == delayed


@pytest.mark.parametrize(
    "change",
    [
        {"body": "no JSON"},
        {"body": "[" * 100_000},
        {"body": "[]"},
        {"body": "{}"},
        {"body": '{"task": 7}'},
        {"body": '{"task": "task12345"}'},
        {"attributes": {}},
    ],
    ids=str,
)
def test_a_malformed_message_is_reported_and_does_not_affect_the_others(
    archiver: Archiver,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
) -> None:
    archiver.succeed(archiver.serve("a", PNG))
    good, bad = archiver.receive(TASK, "flux-kontext#other")
    if "other" in good["body"]:
        good, bad = bad, good

    # A message without a task can never be handled: it becomes a dead letter at once.
    assert archiver.handle([bad | change, good]) == ([] if "body" in change else [bad["messageId"]])
    assert archiver.dead_letters() == ([change["body"]] if "body" in change else [])

    assert archiver.item()["status"] == "ARCHIVED"
    errors = [vars(record) for record in caplog.records if record.levelname == "ERROR"]
    assert bad["messageId"] in {error.get("message_id") for error in errors}
    assert counted(capsys)[0] in ("InvalidMessageError", "KeyError")


def test_an_error_that_ends_an_invocation_is_reported_with_all_its_tasks(
    archiver: Archiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TASKS_TABLE")

    with pytest.raises(SettingsError, match="TASKS_TABLE"):
        archiver.run(TASK, "acedata#a1")

    assert reported(caplog.records, TASK) == reported(caplog.records, "acedata#a1") == {"SettingsError"}


def test_the_tasks_of_a_batch_are_logged_before_the_work(archiver: Archiver, caplog: pytest.LogCaptureFixture) -> None:
    archiver.succeed(archiver.serve("a", PNG))

    archiver.run()

    # If Lambda ends the invocation because of its timeout, Lambda's own log line has only the request id.
    assert vars(caplog.records[0])["tasks"] == [TASK]
    assert caplog.records[0].message == "batch received"


def test_a_run_is_logged_with_the_resulting_status(archiver: Archiver, caplog: pytest.LogCaptureFixture) -> None:
    archiver.succeed(archiver.serve("a", PNG))

    archiver.run()

    (run,) = [vars(record) for record in caplog.records if record.message == "archive run"]
    assert (run["task"], run["status"], run["renewed"]) == (TASK, "ARCHIVED", False)
