"""Programs that run until Ctrl-C end without a traceback, in whichever thread the signal arrives."""

import signal
import subprocess
import sys

import pytest

from local import REPOSITORY

PATHS = [str(REPOSITORY), str(REPOSITORY / "cli"), str(REPOSITORY / "layers" / "catchlight" / "python")]
TIMEOUT_SECONDS = 60

SIGNAL_IN_ANOTHER_THREAD = """
import signal, threading
from catchlight_cli.interruption import wait_for_interruption
number = signal.SIGINT
threading.Timer(0.1, lambda: signal.pthread_kill(threading.get_ident(), number)).start()
try:
    wait_for_interruption()
except KeyboardInterrupt:
    print("interrupted")
"""

SIGNAL_TO_UP = """
import os, signal
import local.__main__ as program
from catchlight_cli.interruption import wait_for_interruption

def up(options):
    os.kill(os.getpid(), signal.{})
    wait_for_interruption()

program._up = up
print(program.main(["up"]))
"""


def run(script: str, *, prefix: str = "") -> subprocess.CompletedProcess[str]:
    program = f"{prefix}import sys; sys.path[:0] = {PATHS!r}\n{script}"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this platform has no pthread_kill")
def test_a_signal_to_another_thread_interrupts_the_main_thread() -> None:
    process = run(SIGNAL_IN_ANOTHER_THREAD)
    assert (process.stdout, process.stderr, process.returncode) == ("interrupted\n", "", 0)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_end_the_local_stack_with_exit_code_0(name: str) -> None:
    """SIGHUP is sent when the terminal is closed."""
    if not hasattr(signal, name):
        pytest.skip(f"this platform has no {name}")
    process = run(SIGNAL_TO_UP.format(name))
    assert (process.stdout, process.stderr, process.returncode) == ("0\n", "", 0)


def test_under_nohup_the_local_stack_ignores_sighup() -> None:
    if not hasattr(signal, "SIGHUP"):
        pytest.skip("this platform has no SIGHUP")
    script = SIGNAL_TO_UP.format("SIGHUP").replace("wait_for_interruption()", "return 7")
    process = run(script, prefix="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n")
    assert (process.stdout, process.stderr, process.returncode) == ("7\n", "", 0)


INTERRUPTED_WITH_A_REQUEST_IN_PROGRESS = """
import sys, threading
from catchlight_cli import command_line
from catchlight_cli.__main__ import main

def run():
    threading.Thread(target=threading.Event().wait, args=(60,)).start()
    raise KeyboardInterrupt

command_line.run = run
status = main()
print(status, flush=True)
sys.exit(status)
"""


def test_a_second_ctrl_c_does_not_wait_for_threads() -> None:
    program = f"import sys; sys.path[:0] = {PATHS!r}\n{INTERRUPTED_WITH_A_REQUEST_IN_PROGRESS}"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "130\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_SECONDS - 5) in (-signal.SIGINT, 130)
        assert process.stderr.read() == ""
