"""Files of task ids in three formats: each line is read separately, and tasks are registered at a limited rate."""

from typing import Any

import pytest

from catchlight.models import utc_now
from catchlight_cli.repair.bulk_import import InvalidLine, TaskLine, read_file, read_lines, register

A, B = "flux-kontext#a", "acedata#b-1"


def tasks(text: str, provider: str | None = None) -> list[Any]:
    return [
        (each.line, each.task) if isinstance(each, TaskLine) else (each.line, None)
        for each in read_lines(text.splitlines(keepends=True), provider=provider)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "flux-kontext#a\nacedata#b-1\n",
        "flux-kontext/a\nacedata/b-1",
        '{"provider": "flux-kontext", "taskId": "a"}\n{"task": "acedata#b-1"}\n',
        '{"provider": "flux-kontext", "task_id": "a", "prompt": "x"}\n{"provider": "acedata", "id": "b-1"}\n',
    ],
)
def test_formats_of_a_line(text: str) -> None:
    assert tasks(text) == [(1, A), (2, B)]


@pytest.mark.parametrize(
    "text",
    [
        "provider,taskId\nflux-kontext,a\nacedata,b-1\n",
        "task_id,provider\r\na,flux-kontext\r\nb-1,acedata\r\n",
        "Provider;Task ID\nflux-kontext;a\nacedata;b-1\n",
        "PROVIDER\tTASKID\tPrompt\nflux-kontext\ta\tx;y,z\nacedata\tb-1\t\n",
        'Prompt;Task\n"x;y";flux-kontext#a\nx,y;acedata#b-1\n',
        "TASK-ID,Provider\na,flux-kontext\nb-1,acedata\n",
        "prompt,task\nx,flux-kontext#a\n,acedata/b-1\n",
        "id, provider \na, flux-kontext \nb-1,acedata\n",
    ],
)
def test_csv_with_a_header(text: str) -> None:
    assert tasks(text) == [(2, A), (3, B)]


def test_a_line_that_names_the_delimiter_for_excel() -> None:
    assert tasks("sep=;\nprovider;taskId\nflux-kontext;a\nacedata;b-1\n") == [(3, A), (4, B)]


def test_json_lines_with_names_in_other_cases() -> None:
    text = '{"Provider": "flux-kontext", "TaskID": "a"}\n{"TASK": "acedata#b-1"}\n'

    assert tasks(text) == [(1, A), (2, B)]


def test_of_several_id_columns_the_first_one_named_task_id_is_used() -> None:
    assert tasks("id,task_id,taskId,provider\n7,a,x,flux-kontext\n8,b-1,y,acedata\n") == [(2, A), (3, B)]


def test_a_quoted_value_of_several_lines() -> None:
    text = 'prompt,task\n"two\nlines, and a comma",flux-kontext#a\nshort,acedata#b-1\n'

    assert tasks(text) == [(3, A), (4, B)]


def test_bare_ids_of_one_provider() -> None:
    assert tasks("a\n\nb\n", provider="nanobanana") == [(1, "nanobanana#a"), (3, "nanobanana#b")]
    assert tasks("taskId\na\n", provider="nanobanana") == [(2, "nanobanana#a")]
    # A provider in the line takes precedence.
    assert tasks("provider,taskId\nacedata,a\n,b\n", provider="nanobanana") == [
        (2, "acedata#a"),
        (3, "nanobanana#b"),
    ]


def test_blank_lines_count() -> None:
    assert tasks("\n\nflux-kontext#a\n\nacedata#b-1\n") == [(3, A), (5, B)]
    assert tasks("\n\ntask\nflux-kontext#a\n\nacedata#b-1\n") == [(4, A), (6, B)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a\n", "no provider"),
        ("flux-kontext#\n", "invalid task id"),
        ("flux-kontext#a b\n", "invalid task id"),
        ("flux-kontext#" + "a" * 129, "invalid task id"),
        ("midjourney#a\n", "unknown provider midjourney"),
        ('{"task": 7}\n', "no task"),
        ('{"prompt": "x"}\n', "no task"),
        ('{"taskId": null}\n', "no task"),
        ('{"task": "flux-kontext#a"\n', "invalid JSON"),
        ("#a\n", "no provider"),
    ],
)
def test_an_invalid_line_has_a_reason(text: str, problem: str) -> None:
    (invalid,) = read_lines(text.splitlines())

    assert isinstance(invalid, InvalidLine)
    assert problem in invalid.problem


def test_an_invalid_line_does_not_affect_the_others() -> None:
    text = '{"task": "flux-kontext#a"}\nnot JSON\n[1]\n{"task": "acedata#b-1"}\n'

    assert tasks(text) == [(1, A), (2, None), (3, None), (4, B)]
    assert tasks("task,x\nflux-kontext#a,1\nacedata#c\nacedata#b-1,2\n") == [(2, A), (3, None), (4, B)]


def test_duplicate_tasks_of_a_file_are_removed() -> None:
    assert read_file(["flux-kontext#a\n", "flux-kontext/a\n", "acedata#b-1\n"]) == ([A, B], 3, ())


# ------------------------------------------------------------------------------------------------ the rate


class Clock:
    """A clock that `sleep` advances, and a tasks table whose calls take `call_seconds` on this clock."""

    def __init__(self, call_seconds: float) -> None:
        self.now = 0.0
        self.calls: list[tuple[float, str, list[str]]] = []
        self._call_seconds = call_seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def register(self, provider: str, task_ids: list[str], *, now: Any) -> list[bool]:
        self.calls.append((self.now, provider, task_ids))
        self.now += self._call_seconds
        return [True] * len(task_ids)


@pytest.mark.parametrize(("per_second", "call_seconds"), [(20, 0.05), (20, 0.9), (1, 0.0), (0.5, 0.1), (1000, 0.001)])
def test_tasks_are_registered_no_faster_than_the_rate(per_second: float, call_seconds: float) -> None:
    clock: Any = Clock(call_seconds)
    keys = [f"acedata#{number}" for number in range(50)]

    batches = list(register(clock, keys, rate=per_second, now=utc_now, clock=lambda: clock.now, sleep=clock.sleep))

    assert {task: is_new for batch in batches for task, is_new in batch.items()} == dict.fromkeys(keys, True)
    done = 0
    for at, _, ids in clock.calls:
        # When a call begins, the earlier calls have registered no more tasks than the rate allows in this time.
        assert done <= at * per_second + 1e-6
        done += len(ids)
        assert len(ids) <= max(1, min(10, per_second))


def test_tasks_are_registered_per_provider() -> None:
    clock: Any = Clock(0)

    list(register(clock, [B, A, "acedata#c"], rate=100, now=utc_now, clock=lambda: clock.now, sleep=clock.sleep))

    assert [(provider, ids) for _, provider, ids in clock.calls] == [("acedata", ["b-1", "c"]), ("flux-kontext", ["a"])]
