"""Provides a small stack that has every kind of resource, and functions of a few lines."""

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.lambda_.configuration import FunctionConfiguration
from local.lambda_.logs import LogFolder
from local.lambda_.runtime import Function
from local.stack import LocalStack
from tests.integration.local.running_example import EXAMPLE, Example


@pytest.fixture(scope="module")  # not the session: mock_aws in another module's tests would empty it
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    state_dir = tmp_path_factory.mktemp("state")
    stack = LocalStack(
        template=EXAMPLE,
        state_dir=state_dir,
        time_scale=0.001,
        simulator=False,
        parameters={"NotesFolder": str(state_dir)},
    )
    with stack:
        running = Example(stack, state_dir)
        yield running
        running.http.close()


@pytest.fixture
def logs(tmp_path: Path) -> LogFolder:
    return LogFolder(tmp_path / "logs")


@pytest.fixture
def make_function(tmp_path: Path, logs: LogFolder) -> Iterator[Callable[..., Function]]:
    """Creates functions from source text; their processes end with the test."""
    functions: list[Function] = []

    def make(
        source: str,
        *,
        timeout_seconds: float = 60,
        max_sandboxes: int = 8,
        layers: tuple[Path, ...] = (),
        runtime_dir: Path | None = None,
        **environment: str,
    ) -> Function:
        folder = tmp_path / f"function{len(functions)}"
        folder.mkdir()
        (folder / "app.py").write_text(textwrap.dedent(source))
        configuration = FunctionConfiguration(
            "Tested",
            "app.handler",
            folder,
            layers=layers,
            runtime_dir=runtime_dir,
            timeout_seconds=timeout_seconds,
            memory_mb=256,
            environment=environment,
        )
        functions.append(Function(configuration, logs, {}, max_sandboxes))
        return functions[-1]

    yield make
    for function in functions:
        function.stop()
