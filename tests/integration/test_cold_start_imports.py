"""The modules that ReceiveCallback loads until its first response: each further module slows down every cold start."""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.aws_stand_in import StandIn, stand_in
from tests.benchmarks.deployed import RUNTIME_CLIENT, copy_installed
from tests.benchmarks.sandbox import ANSWERS, Sandbox, a_callback
from tests.integration.conftest import REPOSITORY

LAYER = REPOSITORY / "layers" / "catchlight" / "python"
PACKAGES = {
    # The client library, and its own dependencies.
    *("botocore", "certifi", "dateutil", "jmespath", "six", "urllib3"),
    "aws_lambda_powertools",
    # The libraries that read a callback, and their dependencies.
    *("annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection"),
}
OWN_MODULES = {
    "aws",
    "aws.batches",
    "aws.clients",
    "aws.dynamodb",
    "aws.secrets",
    "recovery",
    "recovery.deliveries",
    "errors",
    "models",
    "observability",
    "observability.failures",
    "observability.log_lines",
    "observability.metrics",
    "providers",
    "providers.flux_kontext",
    "providers.kie",
    "providers.payloads",
    "providers.base",
    "providers.records",
    "settings",
    "tasks",
    "tasks.reports",
    "tasks.table",
    "tasks.task",
}


def install(folder: Path) -> None:
    """Installs the layer's requirements only: some of them would import further packages of this environment."""
    for name in re.findall(r"^[a-z][\w.-]*(?===)", (LAYER / "requirements.txt").read_text(), re.MULTILINE):
        for top_level in {Path(file.parts[0]) for file in files(name) or ()} - {Path(".."), Path("__pycache__")}:
            (folder / top_level).symlink_to(Path(pytest.__file__).parents[1] / top_level)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], StandIn]]:
    """Returns what a new interpreter reports about its first callback, and the AWS calls that it made."""
    layer, runtime = tmp_path_factory.mktemp("layer"), tmp_path_factory.mktemp("runtime")
    install(layer)
    copy_installed(RUNTIME_CLIENT, runtime)
    paths = [str(REPOSITORY / "functions" / "receive_callback"), str(LAYER), str(layer)]
    with stand_in(tmp_path_factory.mktemp("aws"), ANSWERS) as aws:
        report, _ = Sandbox(paths, a_callback()).start(aws, str(runtime))
        yield report, aws


def test_the_first_callback_is_accepted(loaded: tuple[dict[str, Any], StandIn]) -> None:
    report, aws = loaded

    assert report["answer"]["statusCode"] == 200
    assert aws.calls == {"GetSecretValue": 2, "UpdateItem": 1}
    assert aws.connections == 2


def test_exactly_the_listed_packages_are_loaded(loaded: tuple[dict[str, Any], StandIn]) -> None:
    top_level = {name.partition(".")[0] for name in loaded[0]["modules"]}
    foreign = {name for name in top_level if name not in sys.stdlib_module_names and not name.startswith("_")}

    assert foreign - {"app", "catchlight"} == PACKAGES


def test_exactly_the_listed_modules_of_catchlight_are_loaded(loaded: tuple[dict[str, Any], StandIn]) -> None:
    own = {name.removeprefix("catchlight.") for name in loaded[0]["modules"] if name.startswith("catchlight.")}

    assert own == OWN_MODULES
