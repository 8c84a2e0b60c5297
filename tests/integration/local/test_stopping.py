"""The process of the stack ends in bounded time, even if one of its threads does not stop."""

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from local import REPOSITORY
from local.lambda_.runtime import Function, TooManyRequestsError
from tests.waiting import eventually


def test_a_process_that_cannot_stop_is_ended() -> None:
    hanging = (
        "import threading; from local.__main__ import end_process_within; "
        "end_process_within(0.1); threading.Event().wait()"
    )

    ended = subprocess.run(
        [sys.executable, "-c", hanging], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )

    assert (ended.returncode, ended.stderr) == (1, "error: the stack did not stop within 0.1 s, so it was ended\n")


def test_all_sandboxes_are_killed_before_any_is_waited_for(make_function: Callable[..., Function]) -> None:
    function = make_function("import time\ndef handler(event, context): time.sleep(600)", max_sandboxes=3)
    runs = [threading.Thread(target=function.invoke, args=(b"{}",)) for _ in range(3)]
    for run in runs:
        run.start()
    eventually(lambda: len(function.busy()) == 3)

    function.begin_stop()

    for run in runs:
        run.join(60)
    assert not any(run.is_alive() for run in runs)
    assert function.pids() == []
    with pytest.raises(TooManyRequestsError, match="has been stopped"):
        function.invoke(b"{}")
