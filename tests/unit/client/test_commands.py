"""The commands that call the tasks API: arguments, output and exit status."""

import csv
import io
import json
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
import pytest

from catchlight.api.problems import REQUEST_REFUSED, UNKNOWN_OUTCOME
from catchlight.api.problems import APIError as ServedProblemError
from catchlight.models import TaskStatus
from catchlight_cli.arguments import since
from tests.tasks_api_in_memory import NOW, TasksApiInMemory, a_lost_image, a_task, an_image
from tests.unit.client.conftest import Ran

Catchlight = Callable[..., Ran]
PROMPT = '{"prompt": "a tree"}'


# ------------------------------------------------------------------------------------------------ submit


def test_submit_prints_the_key_to_stderr_and_the_task_to_stdout(catchlight: Catchlight) -> None:
    api = TasksApiInMemory()
    ran = catchlight(api, "submit", "acedata", PROMPT)
    assert ran.status == 0
    assert "Submitted acedata/task0." in ran.out
    (request,) = api.requests
    assert f"Idempotency key: {request.headers['Idempotency-Key']}" in ran.err
    assert json.loads(request.content) == {"provider": "acedata", "request": {"prompt": "a tree"}}


def test_the_key_is_printed_even_if_there_is_no_response(catchlight: Catchlight) -> None:
    api = TasksApiInMemory()

    def lose(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("lost")

    api.before = lose
    ran = catchlight(api, "submit", "acedata", PROMPT)
    assert ran.status == 1
    assert re.search(r"Idempotency key: [0-9a-f-]{36}", ran.err)
    assert "api.example does not respond" in ran.err


def test_submit_accepts_a_file_an_endpoint_and_a_key(catchlight: Catchlight, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text('{"prompt": "ein Würfel"}', encoding="utf-8")
    api = TasksApiInMemory()
    words = (
        "submit",
        "nanobanana",
        "--file",
        str(tmp_path / "request.json"),
        "--endpoint",
        "generate-pro",
        "--idempotency-key",
        "o1",
    )
    ran = catchlight(api, *words, "--json")
    (request,) = api.requests
    assert json.loads(request.content) == {
        "provider": "nanobanana",
        "endpoint": "generate-pro",
        "request": {"prompt": "ein Würfel"},
    }
    assert request.headers["Idempotency-Key"] == "o1"
    assert ran.document["idempotencyKey"] == "o1"
    assert ran.document["submission"]["taskId"] == "task0"


@pytest.mark.parametrize("words", [("submit", "acedata", PROMPT), ("register", "acedata", "t1")])
def test_new_tasks_get_the_metadata(catchlight: Catchlight, words: tuple[str, ...]) -> None:
    api = TasksApiInMemory()
    own = ("--metadata", "order=17", "--metadata", "note=a=b", "--ref", "order-17")
    assert catchlight(api, *words, *own).status == 0
    sent = json.loads(api.requests[0].content)
    assert (sent["metadata"], sent["ref"]) == ({"order": "17", "note": "a=b"}, "order-17")


def test_list_filters_by_metadata_and_reference(catchlight: Catchlight) -> None:
    tasks = [a_task("t1", metadata={"order": "17"}), a_task("t2", metadata={"order": "18"}), a_task("t3", ref="r1")]
    api = TasksApiInMemory(tasks)
    for words, expected in ((("--metadata", "order=17"), "t1"), (("--ref", "r1"), "t3")):
        (task,) = catchlight(api, "list", *words, "--json").document["tasks"]
        assert task["taskId"] == expected
    assert [task.task_id for task in api.client().tasks(metadata="order=18")] == ["t2"]


@pytest.mark.parametrize(
    "words",
    [
        ("list", "--ref", "a b"),
        ("list", "--metadata", "order"),
        ("register", "acedata", "t1", "--metadata", "=17"),
        ("register", "acedata", "t1", "--metadata", f"order={'7' * 257}"),
    ],
)
def test_malformed_metadata_and_references_are_usage_errors(catchlight: Catchlight, words: tuple[str, ...]) -> None:
    api = TasksApiInMemory()
    with pytest.raises(SystemExit) as exited:
        catchlight(api, *words)
    assert (exited.value.code, api.requests) == (2, [])


def piped(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("is_file", [True, False], ids=["file", "stdin"])
def test_submit_reads_json_in_utf_8_and_utf_16(
    catchlight: Catchlight, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str, is_file: bool
) -> None:
    content = '{"prompt": "ein Würfel"}'.encode(encoding)
    (tmp_path / "request.json").write_bytes(content)
    piped(monkeypatch, content)
    api = TasksApiInMemory()

    source = ("--file", str(tmp_path / "request.json")) if is_file else ("-",)
    assert catchlight(api, "submit", "acedata", *source).status == 0

    assert json.loads(api.requests[0].content)["request"] == {"prompt": "ein Würfel"}


def test_submit_reads_stdin(catchlight: Catchlight, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, PROMPT.encode())
    api = TasksApiInMemory()
    assert catchlight(api, "submit", "acedata", "-").status == 0
    assert json.loads(api.requests[0].content)["request"] == {"prompt": "a tree"}


def test_submit_waits_with_wait(catchlight: Catchlight) -> None:
    api = TasksApiInMemory()

    def finish(request: httpx.Request) -> None:
        if request.method == "GET":
            api.tasks["acedata#task0"] = a_task("task0", provider="acedata", images=[an_image("task0", b"x")])

    api.before = finish
    ran = catchlight(api, "submit", "acedata", PROMPT, "--wait")
    assert ran.status == 0
    assert "acedata/task0  ARCHIVED" in ran.out
    assert "result-0" in ran.out


def test_submit_exits_with_1_if_the_task_fails(catchlight: Catchlight) -> None:
    api = TasksApiInMemory()

    def fail(request: httpx.Request) -> None:
        if request.method == "GET":
            failure = {"reason": "CONTENT_POLICY", "code": "400", "message": "flagged [bold]by[/bold] Website"}
            api.tasks["acedata#task0"] = a_task("task0", TaskStatus.FAILED, provider="acedata", failure=failure)

    api.before = fail
    ran = catchlight(api, "submit", "acedata", PROMPT, "--wait", "5")
    assert ran.status == 1
    assert "CONTENT_POLICY 400 flagged [bold]by[/bold] Website" in ran.out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["acedata"], "Give exactly one request"),
        (["acedata", PROMPT, "--file", "x"], "Give exactly one request"),
        (["acedata", "{"], "is not valid JSON: Expecting property name"),
        (["acedata", '{"prompt": NaN}'], "is not valid JSON: NaN is not valid JSON"),
        (["acedata", '{"prompt": ' + "[" * 200_000], "is not valid JSON: maximum recursion depth"),
        (["acedata", "--file", "/nowhere/at/all"], "cannot be read"),
        (["acedata", "[]"], "JSON object"),
        (["acedata", "{}"], "The request is empty. Give it"),
        ([], "Name a provider"),
    ],
)
def test_invalid_requests(catchlight: Catchlight, words: list[str], reason: str) -> None:
    api = TasksApiInMemory()
    ran = catchlight(api, "submit", *words)
    assert (ran.status, api.requests) == (2, [])
    assert reason in ran.err


def test_an_empty_key_is_refused(catchlight: Catchlight) -> None:
    """`--idempotency-key "$ORDER"` passes an empty key if the variable is not set.

    A generated key instead would start one more generation with each attempt.
    """
    api = TasksApiInMemory()
    ran = catchlight(api, "submit", "acedata", PROMPT, "--idempotency-key", "")
    assert (ran.status, api.requests) == (1, [])
    assert "'' is not an idempotency key" in ran.err


def test_submit_exits_with_1_if_the_task_is_not_done_in_time(catchlight: Catchlight) -> None:
    api = TasksApiInMemory()

    def put(request: httpx.Request) -> None:
        if request.method == "GET":
            api.tasks["acedata#task0"] = a_task("task0", TaskStatus.PENDING, provider="acedata")

    api.before = put
    ran = catchlight(api, "submit", "acedata", PROMPT, "--wait", "0")
    assert ran.status == 1
    assert "acedata/task0 is not done yet: PENDING." in ran.err


def test_detail_and_advice_of_a_refusal_are_printed(catchlight: Catchlight) -> None:
    api = TasksApiInMemory()
    refusal = ServedProblemError(REQUEST_REFUSED, "nanobanana does not take it", advice="Change the request.")
    headers = {"Content-Type": "application/problem+json"}
    api.before = lambda _: httpx.Response(422, json=refusal.members, headers=headers)
    ran = catchlight(api, "submit", "nanobanana", PROMPT)
    assert (ran.status, ran.out) == (1, "")
    assert "The provider refused the request: nanobanana does not take it. Change the request." in ran.err


def test_an_unknown_outcome_is_explained_and_its_key_can_be_released(catchlight: Catchlight) -> None:
    api = TasksApiInMemory()
    problem = ServedProblemError(UNKNOWN_OUTCOME, "no answer came", advice="Look at the provider's log.")
    headers = {"Content-Type": "application/problem+json"}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            return httpx.Response(204)
        return httpx.Response(409, json=problem.members, headers=headers)

    api.before = answer
    ran = catchlight(api, "submit", "acedata", PROMPT, "--idempotency-key", "o1")
    assert ran.status == 1
    assert "catchlight submit --release-key o1" in ran.err
    ran = catchlight(api, "submit", "--release-key", "o1")
    assert ran.status == 0
    assert api.requested_paths("DELETE") == ["/submissions/o1"]


# ------------------------------------------------------------------------------------------------ register


def test_register_sends_100_ids_per_request(catchlight: Catchlight, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"t{n}" for n in range(205)]
    piped(monkeypatch, "\ufeff".encode() + "\n".join([*ids, "", " t1 "]).encode())
    api = TasksApiInMemory([a_task("t7", provider="acedata")])
    ran = catchlight(api, "register", "acedata", "-", "--json")
    assert [len(json.loads(request.content)["taskIds"]) for request in api.requests] == [100, 100, 5]
    outcomes = {task["taskId"]: task["outcome"] for task in ran.document["tasks"]}
    assert (len(outcomes), outcomes["t7"], outcomes["t8"]) == (205, "known", "registered")


@pytest.mark.parametrize("task_id", ["a b", "", "x" * 129])
def test_invalid_ids_are_not_registered(catchlight: Catchlight, task_id: str) -> None:
    api = TasksApiInMemory()
    ran = catchlight(api, "register", "acedata", "good", task_id or "/")
    assert (ran.status, api.requests) == (2, [])


# ------------------------------------------------------------------------------------------------ get, wait


@pytest.mark.parametrize("name", ["flux-kontext/t1", "flux-kontext#t1", "t1"])
def test_get_accepts_every_form_of_a_tasks_name(catchlight: Catchlight, name: str) -> None:
    api = TasksApiInMemory([a_task("t1", images=[an_image("t1", b"x"), a_lost_image("t1")])])
    ran = catchlight(api, "get", name, "--json")
    (task,) = ran.document["tasks"]
    assert task["task"] == "flux-kontext#t1"
    assert task["images"][0]["link"].startswith("https://storage.example/")


def test_get_prints_a_task_as_text(catchlight: Catchlight) -> None:
    conflict = {"reportedBy": "callback", "reportedAt": "2026-11-21T12:01:00.000Z", "status": "FAILED"}
    task = a_task(
        "t1", images=[an_image("t1", b"x"), a_lost_image("t1")], request={"prompt": "a [red]tree"}, conflicts=[conflict]
    )
    ran = catchlight(TasksApiInMemory([task]), "get", "t1")
    for words in (
        "flux-kontext/t1  ARCHIVED",
        "a [red]tree",
        "EXPIRED: its URL had expired",
        "callback reported FAILED; not applied",
    ):
        assert words in ran.out


def test_a_bare_id_that_several_tasks_have(catchlight: Catchlight) -> None:
    ran = catchlight(TasksApiInMemory([a_task("t1"), a_task("t1", provider="acedata")]), "get", "t1")
    assert ran.status == 2
    assert "flux-kontext/t1, acedata/t1" in ran.err


@pytest.mark.parametrize("command", ["get", "wait"])
@pytest.mark.parametrize(
    ("name", "description"),
    [("t1", "t1 of any provider. Check"), ("acedata/t1", "acedata/t1. Check")],
)
def test_a_missing_task_does_not_hide_the_others(
    catchlight: Catchlight, command: str, name: str, description: str
) -> None:
    api = TasksApiInMemory([a_task("t0"), a_task("t2")])
    ran = catchlight(api, command, "t0", name, "flux-kontext/t2", "--json")
    assert ran.status == 1
    assert [task["taskId"] for task in ran.document["tasks"]] == ["t0", "t2"]
    assert f"There is no task {description}" in ran.err
    assert "catchlight register" in ran.err


def test_wait_exits_with_0_if_all_tasks_are_archived(catchlight: Catchlight) -> None:
    api = TasksApiInMemory([a_task("t1"), a_task("t2")])
    assert catchlight(api, "wait", "t1", "flux-kontext/t2").status == 0


@pytest.mark.parametrize("status", [TaskStatus.FAILED, TaskStatus.INCOMPLETE, TaskStatus.TIMED_OUT, TaskStatus.PENDING])
def test_wait_exits_with_1_unless_all_tasks_are_archived(catchlight: Catchlight, status: TaskStatus) -> None:
    api = TasksApiInMemory([a_task("t1"), a_task("t2", status)])
    ran = catchlight(api, "wait", "t1", "flux-kontext/t2", "--timeout", "0", "--json")
    assert ran.status == 1
    assert [task["status"] for task in ran.document["tasks"]] == ["ARCHIVED", status]
    assert ("not done yet" in ran.err) == (status is TaskStatus.PENDING)


# ------------------------------------------------------------------------------------------------ list


def test_list_shows_the_newest_and_says_that_there_are_more(catchlight: Catchlight) -> None:
    api = TasksApiInMemory(a_task(f"t{n}", arrived_at=NOW - timedelta(minutes=n)) for n in range(8))
    ran = catchlight(api, "list", "--limit", "5")
    assert re.findall(r"flux-kontext/(t\d)", ran.out) == ["t0", "t1", "t2", "t3", "t4"]
    assert "There are older tasks" in ran.err
    assert catchlight(api, "list", "--limit", "8", "--json").document["hasMore"] is False


def test_list_all_in_every_format(catchlight: Catchlight) -> None:
    tasks = [a_task(f"t{n:03}", arrived_at=NOW - timedelta(minutes=n), ref="r-1") for n in range(230)]
    api = TasksApiInMemory(tasks)
    names = [f"flux-kontext/t{n:03}" for n in range(230)]

    table = catchlight(api, "list", "--all").out.splitlines()
    assert [line.split()[0] for line in table] == ["Task", *names]
    assert len({line.index("ARCHIVED") for line in table[1:]}) == 1  # the columns of all pages are those of the first

    document = catchlight(api, "list", "--all", "--format", "json").document
    assert [f"{task['provider']}/{task['taskId']}" for task in document["tasks"]] == names
    assert (document["hasMore"], document["unreadable"]) == (False, [])
    assert catchlight(api, "list", "--all", "--json").document == document

    rows = list(csv.DictReader(io.StringIO(catchlight(api, "list", "--all", "--format", "csv").out)))
    assert [row["task"] for row in rows] == names
    assert rows[0]["arrivedAt"] == tasks[0].arrived_at
    assert {(row["status"], row["reason"], row["ref"], row["images"]) for row in rows} == {("ARCHIVED", "", "r-1", "0")}


@pytest.mark.parametrize("limit", [1, 99, 100, 101, 200, 229, 230])
def test_the_limit_of_list_may_be_reached_on_any_page(catchlight: Catchlight, limit: int) -> None:
    api = TasksApiInMemory(a_task(f"t{n}", arrived_at=NOW - timedelta(minutes=n)) for n in range(230))
    document = catchlight(api, "list", "--limit", str(limit), "--json").document
    assert [task["taskId"] for task in document["tasks"]] == [f"t{n}" for n in range(limit)]
    assert document["hasMore"] == (limit < 230)


@pytest.mark.parametrize("format_", ["table", "csv", "json"])
def test_an_empty_list_is_valid_output_in_each_format(catchlight: Catchlight, format_: str) -> None:
    ran = catchlight(TasksApiInMemory(), "list", "--format", format_)
    match format_:
        case "table":
            assert ran.out == "No task matches.\n"
        case "csv":
            assert len(ran.out.splitlines()) == 1
        case "json":
            assert ran.document == {"tasks": [], "hasMore": False, "unreadable": []}


@pytest.mark.parametrize("format_", ["table", "csv", "json"])
def test_the_first_page_is_printed_before_the_second_is_requested(catchlight: Catchlight, format_: str) -> None:
    api = TasksApiInMemory(a_task(f"t{n}", arrived_at=NOW - timedelta(minutes=n)) for n in range(230))

    def fail(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(403) if "cursor" in request.url.params else None

    api.before = fail
    ran = catchlight(api, "list", "--all", "--format", format_)
    assert ran.status == 1
    assert "t19" in ran.out
    assert [request.url.params["limit"] for request in api.requests] == ["20", "100"]
    assert "t100" not in ran.out


def test_two_formats_at_once_are_a_usage_error(catchlight: Catchlight) -> None:
    ran = catchlight(TasksApiInMemory(), "list", "--json", "--format", "csv")
    assert (ran.status, ran.out) == (2, "")
    assert "either --json or --format csv" in ran.err


def test_piped_output_is_not_wrapped(catchlight: Catchlight, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    ran = catchlight(TasksApiInMemory([a_task("t" * 128)]), "list")
    assert [line.split()[:2] for line in ran.out.splitlines()[1:]] == [[f"flux-kontext/{'t' * 128}", "ARCHIVED"]]
    assert max(map(len, ran.out.splitlines())) < 250  # as wide as it needs to be


@pytest.mark.parametrize("command", ["list", "download"])
def test_malformed_items_are_reported(catchlight: Catchlight, tmp_path: Path, command: str) -> None:
    api = TasksApiInMemory([a_task("t1", TaskStatus.FAILED)])
    api.unreadable = {"flux-kontext#by-hand": "images, request"}
    folder = ["--output-dir", str(tmp_path)] if command == "download" else []
    ran = catchlight(api, command, *folder)
    assert ran.status == 0
    assert "Skipped flux-kontext/by-hand: its item in the table is malformed (images, request)." in ran.err


def test_list_by_status_and_provider(catchlight: Catchlight) -> None:
    tasks = [a_task("t1"), a_task("t2", TaskStatus.FAILED), a_task("t3", TaskStatus.FAILED, provider="acedata")]
    ran = catchlight(TasksApiInMemory(tasks), "list", "--status", "failed", "--provider", "acedata", "--json")
    assert [task["taskId"] for task in ran.document["tasks"]] == ["t3"]


def test_list_without_a_matching_task(catchlight: Catchlight) -> None:
    assert "No task matches." in catchlight(TasksApiInMemory(), "list", "--since", "2h").out


def test_formats_of_since() -> None:
    assert abs(datetime.now(UTC) - since("2h30m") - timedelta(hours=2.5)) < timedelta(seconds=10)
    assert since("2026-01-31T12:00:00+01:00") == datetime(2026, 1, 31, 11, tzinfo=UTC)
    assert since("2026-01-31").tzinfo is UTC


@pytest.mark.parametrize(
    "words",
    [
        ["list", "--since", "yesterday"],
        ["list", "--since", ""],
        ["list", "--since", "99999999999d"],
        ["list", "--status", "LOST"],
        ["list", "--provider", "dalle"],
        ["list", "--limit", "0"],
        ["list", "--limit", "-5"],
        ["get"],
        ["get", "dalle/t1"],
        ["get", "a/b/c"],
        ["register", "acedata"],
    ],
)
def test_invalid_arguments(catchlight: Catchlight, words: list[str]) -> None:
    api = TasksApiInMemory()
    with pytest.raises(SystemExit) as ended:
        catchlight(api, *words)
    assert (ended.value.code, api.requests) == (2, [])


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (["list", "--status", "lost"], "choose from PENDING, TIMED_OUT, FAILED"),
        (["download", "--kind", "both"], "choose from origin, result"),
    ],
)
def test_the_error_for_an_invalid_choice_lists_the_valid_ones(
    catchlight: Catchlight, capsys: pytest.CaptureFixture[str], words: list[str], known: str
) -> None:
    with pytest.raises(SystemExit):
        catchlight(TasksApiInMemory(), *words)
    assert known in capsys.readouterr().err.replace("'", "")


# ------------------------------------------------------------------------------------------------ download


def a_tasks_api_with_images(count: int) -> TasksApiInMemory:
    tasks, pictures = [], {}
    for number in range(count):
        content = f"image {number}".encode()
        image = an_image(f"t{number}", content)
        tasks.append(a_task(f"t{number}", images=[image], arrived_at=NOW - timedelta(minutes=number)))
        pictures[image.key or ""] = content
    return TasksApiInMemory(tasks, pictures)


def test_download_fetches_all_images_of_a_query(catchlight: Catchlight, tmp_path: Path) -> None:
    api = a_tasks_api_with_images(130)
    ran = catchlight(api, "download", "--status", "archived", "--output-dir", str(tmp_path))
    assert ran.status == 0
    assert "130 downloaded" in ran.out
    assert {path.read_bytes() for path in tmp_path.iterdir()} == set(api.pictures.values())
    ran = catchlight(api, "download", "--status", "archived", "--output-dir", str(tmp_path))
    assert "0 downloaded (0.0 MB), 130 already present" in ran.out


def test_download_fetches_tasks_by_name(catchlight: Catchlight, tmp_path: Path) -> None:
    ran = catchlight(
        a_tasks_api_with_images(3), "download", "t2", "flux-kontext/t0", "--output-dir", str(tmp_path), "--json"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "flux-kontext_t0_result-0.jpg",
        "flux-kontext_t2_result-0.jpg",
    ]
    assert {image["outcome"] for image in ran.document["images"]} == {"downloaded"}


def test_download_exits_with_1_if_an_image_cannot_be_saved(catchlight: Catchlight, tmp_path: Path) -> None:
    (tmp_path / "flux-kontext_t1_result-0.jpg").write_text("mine")
    ran = catchlight(a_tasks_api_with_images(3), "download", "--output-dir", str(tmp_path))
    assert ran.status == 1
    assert "flux-kontext/t1 result-0" in ran.out
    assert "exists and is another file" in ran.out


def test_download_names_the_task_that_has_no_images(catchlight: Catchlight, tmp_path: Path) -> None:
    api = a_tasks_api_with_images(1)
    api.put(a_task("t9", TaskStatus.PENDING))
    ran = catchlight(api, "download", "t0", "t9", "--output-dir", str(tmp_path))
    assert ran.status == 1
    assert "1 downloaded" in ran.out
    assert "flux-kontext/t9 is PENDING and has no images." in ran.err
    assert (
        catchlight(api, "download", "--output-dir", str(tmp_path)).status == 0
    )  # if no task is named, a task without images is no error


def test_download_saves_the_images_of_other_tasks_if_one_is_missing(catchlight: Catchlight, tmp_path: Path) -> None:
    ran = catchlight(a_tasks_api_with_images(1), "download", "missing", "t0", "--output-dir", str(tmp_path))
    assert ran.status == 1
    assert "1 downloaded" in ran.out
    assert "There is no task missing" in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ["--status", "ARCHIVED"],
        ["--provider", "acedata"],
        ["--since", "2h"],
        ["--ref", "order-1"],
        ["--metadata", "customer=7"],
        ["--reason", "INTERNAL"],
        ["--limit", "3"],
    ],
)
def test_download_refuses_tasks_together_with_a_filter(catchlight: Catchlight, words: list[str]) -> None:
    ran = catchlight(TasksApiInMemory(), "download", "t1", *words)

    assert ran.status == 2
    assert (
        "Give either tasks or filters (--status, --provider, --since, --ref, --metadata, --reason, --limit)" in ran.err
    )


def test_a_folder_that_cannot_be_created(catchlight: Catchlight, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = catchlight(a_tasks_api_with_images(1), "download", "--output-dir", str(tmp_path / "file"))
    assert ran.status == 1
    assert "is not writable" in ran.err


# ------------------------------------------------------------------------------------------------ gallery


def test_gallery_serves_until_it_is_interrupted(catchlight: Catchlight, monkeypatch: pytest.MonkeyPatch) -> None:
    page_texts: list[str] = []
    opened: list[str] = []
    urls: list[str] = []

    def request_page_and_interrupt() -> None:
        page = Path(url2pathname(urlsplit(opened[0]).path))
        assert stat.S_IMODE(page.stat().st_mode) == 0o600
        assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
        (target,) = re.findall(r'content="0; url=([^"]+)"', page.read_text())
        urls.append(target)
        page_texts.append(httpx.get(target, trust_env=False).text)
        raise KeyboardInterrupt

    monkeypatch.setattr("catchlight_cli.commands.gallery.wait_for_interruption", request_page_and_interrupt)
    monkeypatch.setattr("webbrowser.open", opened.append)
    ran = catchlight(TasksApiInMemory(), "gallery", "--open", "--json")
    assert ran.status == 0
    assert urls == [ran.document["url"]]
    # All users of the machine can read the browser's command line: it names a file, which is deleted at the end.
    assert opened[0].startswith("file:///")
    assert not Path(url2pathname(urlsplit(opened[0]).path)).exists()
    assert "<title>Catchlight</title>" in page_texts[0]


def test_gallery_reports_an_error_of_the_tasks_api_and_does_not_start(catchlight: Catchlight) -> None:
    api = TasksApiInMemory()
    api.before = lambda _: httpx.Response(403, json={"message": "Forbidden"})
    ran = catchlight(api, "gallery")
    assert (ran.status, ran.out) == (1, "")
    assert "execute-api:Invoke" in ran.err
