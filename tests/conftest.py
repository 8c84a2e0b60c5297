"""Runs every test with dummy credentials, without network access, and with the environment of a Lambda function."""

import gc
import itertools
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

import hypothesis
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from local.artefact import Artefact, built_artefact
from local.environment import ignore_user_settings
from local.lambda_.sandbox import hide_packages_of_sam

pytest_plugins = ["pytester", "tests.canary_secrets"]

# With awscrt, botocore would sign requests in another way than in Lambda.
hide_packages_of_sam()

# Called before moto is imported: boto3, which moto uses during its import, fails on invalid settings.
ignore_user_settings()
# Settings of the terminal change the output of commands: the width of tables, and colour codes between words.
for _name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE"):
    os.environ.pop(_name, None)
# Shells start background programs with SIGINT ignored. Programs that tests start and interrupt would inherit this.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The same applies to nohup and SIGHUP.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
# Set before any test module is imported: Powertools reads some of it when handlers are imported.
os.environ.update(
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_SESSION_TOKEN="testing",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_REGION="us-east-1",
    POWERTOOLS_SERVICE_NAME="catchlight",
    POWERTOOLS_METRICS_NAMESPACE="Catchlight",
    # Without it, every flush of Metrics warns that the function name is missing.
    AWS_LAMBDA_FUNCTION_NAME="tested",
)

# The duration of an example depends on the load of the machine, so there is no deadline. Each run tries other examples:
# half of Hypothesis's default number is enough. `make fuzz` tries more inputs of the parsers, for any duration.
hypothesis.settings.register_profile("catchlight", deadline=None, max_examples=50)
hypothesis.settings.load_profile("catchlight")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--built",
        action="store_true",
        help="run the tests that start the local stack of the template, and no others, with the built functions",
    )


def pytest_xdist_auto_num_workers() -> int:
    """Returns the number of processes for `-n auto`: two more than cores, because many tests wait for events."""
    return (os.cpu_count() or 1) + 2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("built"):
        # The other tests give the same result with and without a build.
        chosen = [item for item in items if _starts_the_stack(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
    _spread_waiting(items)


def _starts_the_stack(item: pytest.Item) -> bool:
    return "artefact" in getattr(item, "fixturenames", ())


def _spread_waiting(items: list[pytest.Item]) -> None:
    """Sorts the test files so that the processors are not idle while several workers wait at the same time.

    Tests of a local stack wait for it: their files are spread evenly among the other integration tests. Some unit tests
    wait for time limits: they run before the integration tests, so that the run does not end with them.
    """
    files = [list(of_file) for _, of_file in itertools.groupby(items, lambda item: item.path)]
    integration = [file for file in files if "integration" in file[0].path.parts]
    waiting = [file for file in integration if any(map(_starts_the_stack, file))]
    spread = [file for file in integration if file not in waiting]
    distance = len(spread) // (len(waiting) + 1) + 1
    for number, file in enumerate(waiting):
        spread.insert(number * distance, file)
    items[:] = itertools.chain.from_iterable([*(file for file in files if file not in integration), *spread])


def pytest_collection() -> None:
    gc.disable()  # the collection of tests creates hardly any garbage


def pytest_collection_finish() -> None:
    # Modules and tests exist until the end. Frozen objects are excluded from further garbage collections.
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    # Powertools warns when an invocation, such as a failed one, publishes no metrics, and has no setting for it.
    config.addinivalue_line("filterwarnings", "ignore:No application metrics to publish:UserWarning")
    # Tests of outages log many tracebacks. Python parses each source line to mark its failed part. Without positions it
    # does not, and formatting a traceback of botocore takes 1 ms instead of 4.
    traceback._get_code_position = lambda *_: (None, None, None, None)  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------ the network

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_attempts: list[str] = []


def _refuse(what: str) -> NoReturn:
    _attempts.append(what)
    # Not an Exception: libraries would treat it as a network error and retry.
    pytest.fail(f"a test tried to reach another machine: {what}")


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    if not event.startswith("socket."):  # first, because most events are others
        return
    match event:
        case "socket.connect" | "socket.sendto":
            address = arguments[1]
            if isinstance(address, tuple) and address[0] not in _LOOPBACK:
                _refuse(f"{event} {address[0]}")
        case "socket.getaddrinfo" | "socket.gethostbyname":
            host = arguments[0]
            if host is not None and (host.decode() if isinstance(host, bytes) else host) not in _LOOPBACK:
                _refuse(f"{event} {host!r}")


# An audit hook is called for every socket of the process. Unlike a patch, an earlier import cannot bypass it.
sys.addaudithook(_guard)


@pytest.fixture(autouse=True)
def network_attempts() -> Iterator[list[str]]:
    """Records the test's attempts to reach other machines. Fails the test if there are any, also in threads."""
    _attempts.clear()
    yield _attempts
    assert _attempts == []


# ------------------------------------------------------------------------------------------------ Lambda


class FakeLambdaContext(LambdaContext):
    """The Lambda context of an invocation, with the remaining time that the test needs."""

    def __init__(self, remaining_seconds: float = 60) -> None:
        self._function_name = "tested"
        self._function_version = "$LATEST"
        self._invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:tested"
        self._memory_limit_in_mb = 512
        self._aws_request_id = "00000000-0000-4000-8000-000000000000"
        self._remaining_seconds = remaining_seconds

    def get_remaining_time_in_millis(self) -> int:  # type: ignore[override] # a static method in the base class
        return round(self._remaining_seconds * 1000)


@pytest.fixture
def context() -> LambdaContext:
    return FakeLambdaContext()


# ------------------------------------------------------------------------------------------------ the artefact


@pytest.fixture(scope="session")
def built() -> Artefact:
    """The functions and their layer as `sam build` makes them for this machine."""
    return built_artefact(print)


@pytest.fixture(scope="session")
def artefact(request: pytest.FixtureRequest) -> Artefact | None:
    """The artefact for a LocalStack of the template: the built functions with --built, None for the source tree."""
    if not request.config.getoption("built"):
        return None
    found: Artefact = request.getfixturevalue("built")
    return found
