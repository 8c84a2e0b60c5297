"""Functions run as in Lambda: processes, cold starts, timeouts, crashes, concurrency."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local.lambda_.logs import LogFolder
from local.lambda_.runtime import Function, TooManyRequestsError
from tests.waiting import eventually

MakeFunction = Callable[..., Function]

PRINT_PROCESS = """
    import os, time
    calls = 0
    def handler(event, context):
        global calls
        calls += 1
        while "until" in event and not os.path.exists(event["until"]):
            time.sleep(0.01)
        return {"pid": os.getpid(), "calls": calls}
"""


def call(function: Function, event: Any = None) -> Any:
    outcome = function.invoke(json.dumps(event or {}).encode())
    assert outcome.function_error is None, outcome.payload
    return json.loads(outcome.payload)


def call_failing(function: Function, event: Any = None) -> Any:
    outcome = function.invoke(json.dumps(event or {}).encode())
    assert outcome.function_error == "Unhandled"
    return json.loads(outcome.payload)


@contextmanager
def timeout_of(function: Function, seconds: float) -> Iterator[None]:
    """Sets the timeout of calls that begin within the context."""
    before = function.configuration
    function.configuration = replace(before, timeout_seconds=seconds)
    yield
    function.configuration = before


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_warm_sandbox_is_used_again(make_function: MakeFunction) -> None:
    function = make_function(PRINT_PROCESS)

    first, second = call(function), call(function)

    assert first["pid"] == second["pid"] != os.getpid()
    assert (first["calls"], second["calls"]) == (1, 2)


def test_a_prewarmed_sandbox_processes_the_first_call(make_function: MakeFunction) -> None:
    function = make_function(PRINT_PROCESS)
    sandbox = function.prewarm()

    assert sandbox.wait_until_ready()
    assert call(function)["pid"] == sandbox.pid


def test_concurrent_calls_run_in_separate_sandboxes(make_function: MakeFunction, tmp_path: Path) -> None:
    function = make_function(PRINT_PROCESS)
    released = tmp_path / "released"

    with ThreadPoolExecutor(3) as threads:
        calls = [threads.submit(call, function, {"until": str(released)}) for _ in range(3)]
        eventually(lambda: len(function.pids()) == 3)
        released.touch()

    assert len({each.result()["pid"] for each in calls}) == 3
    assert len(function.pids()) == 3


def test_above_the_limit_calls_wait_for_a_free_sandbox(make_function: MakeFunction) -> None:
    function = make_function(PRINT_PROCESS, max_sandboxes=1)

    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(lambda _: call(function), range(3)))

    assert {result["calls"] for result in results} == {1, 2, 3}
    assert len(function.pids()) == 1


def test_a_call_that_waits_too_long_is_throttled(make_function: MakeFunction, tmp_path: Path) -> None:
    function = make_function(PRINT_PROCESS, max_sandboxes=1)
    released = tmp_path / "released"

    with ThreadPoolExecutor(1) as threads:
        busy = threads.submit(call, function, {"until": str(released)})
        eventually(lambda: function._busy)
        with timeout_of(function, 0.1), pytest.raises(TooManyRequestsError):
            function.invoke(b"{}")
        released.touch()

    assert busy.result()["calls"] == 1


def test_a_sandbox_that_times_out_is_killed_and_the_next_call_starts_cold(
    make_function: MakeFunction, tmp_path: Path
) -> None:
    function = make_function(PRINT_PROCESS)
    old = call(function)["pid"]

    with timeout_of(function, 0.5):
        error = call_failing(function, {"until": str(tmp_path / "never")})

    assert error["errorType"] == "Sandbox.Timedout"
    assert "Task timed out after 0.50 seconds" in error["errorMessage"]
    assert not is_running(old)
    assert call(function)["pid"] != old


def test_a_timeout_kills_child_processes_of_the_handler(make_function: MakeFunction, tmp_path: Any) -> None:
    function = make_function(
        """
        import subprocess, time
        def handler(event, context):
            child = subprocess.Popen(["sleep", "60"])
            open(event["path"], "w").write(str(child.pid))
            time.sleep(60)
        """,
    )
    pid = tmp_path / "pid"

    # A busy machine may need longer to start the child.
    for seconds in (0.5, 5, 60):
        with timeout_of(function, seconds):
            call_failing(function, {"path": str(pid)})
        if pid.exists() and pid.read_text():
            break

    eventually(lambda: not is_running(int(pid.read_text())))


def test_a_crash_is_an_error_and_the_next_call_starts_cold(make_function: MakeFunction) -> None:
    function = make_function(
        """
        import os
        def handler(event, context):
            if event.get("exit"):
                os._exit(event["exit"])
            return os.getpid()
        """
    )
    old = call(function)

    error = call_failing(function, {"exit": 3})

    assert error["errorType"] == "Runtime.ExitError"
    assert "exit status 3" in error["errorMessage"]
    assert call(function) != old


def test_a_sandbox_can_be_killed_during_an_invocation(make_function: MakeFunction) -> None:
    function = make_function(PRINT_PROCESS)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(call_failing, function, {"until": "/never"})
        [sandbox] = eventually(function.busy)
        assert function.kill(sandbox)
        error = running.result()

    assert error["errorType"] == "Runtime.ExitError"
    assert "SIGKILL" in error["errorMessage"]
    assert function.busy() == []
    assert not function.kill(sandbox)
    assert call(function)["calls"] == 1


def test_the_credentials_of_a_handler_identify_its_function_and_sandbox(make_function: MakeFunction) -> None:
    function = make_function(
        """
        import os
        def handler(event, context):
            return [os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SESSION_TOKEN"]]
        """
    )

    name, token = call(function)

    assert name == "Tested"
    assert function.kill(token)


def test_an_idle_sandbox_that_exits_is_replaced(make_function: MakeFunction) -> None:
    function = make_function(PRINT_PROCESS)
    old = call(function)["pid"]

    os.kill(old, signal.SIGKILL)
    eventually(lambda: not function.pids())

    assert call(function)["pid"] != old


def test_an_exception_becomes_lambdas_error_object_and_is_logged(make_function: MakeFunction, logs: LogFolder) -> None:
    function = make_function(
        """
        class StoreUnavailableError(Exception): pass
        def handler(event, context):
            print("before")
            raise StoreUnavailableError("no answer")
        """
    )

    error = call_failing(function)

    assert (error["errorType"], error["errorMessage"]) == ("StoreUnavailableError", "no answer")
    errors = (logs.folder / "errors.log").read_text()
    assert f"Tested: StoreUnavailableError: no answer (request {error['requestId']})" in errors
    assert 'raise StoreUnavailableError("no answer")' in errors
    log = eventually(lambda: "[ERROR]" in (text := (logs.folder / "Tested.log").read_text()) and text)
    assert "before\n" in log
    assert f"REPORT RequestId: {error['requestId']}" in log
    assert "\r" not in log


@pytest.mark.parametrize(
    ("source", "error_type"),
    [
        ("import nothing_of_this_name", "Runtime.ImportModuleError"),
        ("def handler(event, context) return", "Runtime.UserCodeSyntaxError"),
        ("other = 1", "Runtime.HandlerNotFound"),
        ("raise RuntimeError('at import')", "RuntimeError"),
        ("import os; os._exit(9)", "Runtime.ExitError"),
    ],
)
def test_a_module_that_cannot_be_imported_fails_every_call(
    make_function: MakeFunction, source: str, error_type: str
) -> None:
    function = make_function(source)

    assert call_failing(function)["errorType"] == error_type
    assert call_failing(function)["errorType"] == error_type


def test_a_result_that_is_not_json_is_an_error(make_function: MakeFunction) -> None:
    function = make_function("def handler(event, context): return object()")

    assert call_failing(function)["errorType"] == "Runtime.MarshalError"


def test_a_result_that_is_too_large_is_an_error(make_function: MakeFunction) -> None:
    function = make_function("def handler(event, context): return 'x' * 7_000_000")

    assert call_failing(function)["errorType"] == "Function.ResponseSizeTooLarge"


def test_the_handler_has_lambdas_environment_only(make_function: MakeFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "someone")
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1")
    function = make_function(
        """
        import os, sys
        def handler(event, context):
            return {
                "environment": dict(os.environ), "stdin": sys.stdin.read(), "folder": os.getcwd(), "path": sys.path,
                "name": context.function_name, "arn": context.invoked_function_arn,
                "memory": context.memory_limit_in_mb, "left": context.get_remaining_time_in_millis(),
            }
        """,
        COLOR="blue",
    )

    found = call(function)

    environment = found["environment"]
    assert environment["COLOR"] == "blue"
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == found["name"] == "Tested"
    assert environment["AWS_REGION"] == "us-east-1"
    assert environment["_X_AMZN_TRACE_ID"].startswith("Root=1-")
    assert "AWS_PROFILE" not in environment
    assert "HTTPS_PROXY" not in environment
    assert found["stdin"] == ""
    assert found["folder"] == found["path"][0] == str(function.configuration.folder)
    assert str(Path.cwd()) not in found["path"]
    assert found["arn"] == function.configuration.arn
    assert found["memory"] == "256"
    assert 0 < found["left"] <= 60_000


def test_stopping_a_function_ends_its_idle_and_busy_sandboxes(make_function: MakeFunction) -> None:
    function = make_function(PRINT_PROCESS)
    with ThreadPoolExecutor(2) as threads:
        working = threads.submit(function.invoke, b'{"until": "/never"}')
        function.prewarm().wait_until_ready()
        pids = eventually(lambda: len(function.pids()) == 2 and function.pids())
        function.stop()
        assert working.result().function_error

    assert not any(is_running(pid) for pid in pids)
    with pytest.raises(TooManyRequestsError):
        function.invoke(b"{}")


def test_the_exit_of_an_idle_sandbox_is_in_the_error_log(make_function: MakeFunction, logs: LogFolder) -> None:
    function = make_function(PRINT_PROCESS)
    os.kill(call(function)["pid"], signal.SIGSEGV)

    errors = logs.folder / "errors.log"
    # The file exists before its first line is written.
    expected = "Tested: Runtime exited with error: signal: SIGSEGV without an invocation"
    eventually(lambda: errors.exists() and expected in errors.read_text())


def test_the_failed_start_of_a_prewarmed_sandbox_is_in_the_error_log(
    make_function: MakeFunction, logs: LogFolder
) -> None:
    make_function("raise ValueError('no such setting')").prewarm()

    errors = logs.folder / "errors.log"
    eventually(lambda: errors.exists() and "without an invocation" in errors.read_text())
    eventually(lambda: "no such setting" in errors.read_text())


def test_a_killed_sandbox_is_not_logged_as_an_error(make_function: MakeFunction, logs: LogFolder) -> None:
    sandbox = make_function(PRINT_PROCESS).prewarm()
    assert sandbox.wait_until_ready()
    watchers = [thread for thread in threading.enumerate() if "(_watch)" in thread.name]
    assert watchers

    sandbox.kill()

    for watcher in watchers:  # their last step would be the log of an error
        watcher.join(60)
    assert not (logs.folder / "errors.log").exists()
