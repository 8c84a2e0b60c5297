"""Functions from the artefact import only their own files, the runtime client and the standard library."""

import json
import shutil
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from local import LocalStackError
from local.artefact import Artefact
from local.lambda_ import python_runtime_client, runtime_folder
from local.lambda_.configuration import FunctionConfiguration
from local.lambda_.logs import LogFolder
from local.lambda_.runtime import Function
from local.lambda_.runtime_folder import make_runtime_folder
from local.lambda_.sandbox import IMAGE_HOSTS_VARIABLE
from tests.project_template import project_template

MakeFunction = Callable[..., Function]

FUNCTIONS = project_template().of_type("AWS::Lambda::Function")

# A handler that returns the state of its interpreter. The origins are read from module specifications, which have the
# paths on this machine: bytecode in the artefact has Lambda's paths.
INSPECT_INTERPRETER = """
    import importlib, os, sys

    def find(name):
        try:
            importlib.import_module(name)
        except ImportError:
            return False
        return True

    def handler(event, context):
        importable = [name for name in event["imports"] if find(name)]
        specs = {name: getattr(module, "__spec__", None) for name, module in sys.modules.items()}
        origins = {name: spec.origin for name, spec in specs.items() if spec and spec.has_location}
        return {
            "path": sys.path, "importable": importable, "origins": origins, "environment": dict(os.environ),
            "flags": [sys.flags.isolated, sys.flags.no_site],
        }
"""


@pytest.fixture(scope="module")
def runtime_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runtime client's folder, which no test changes."""
    folder = tmp_path_factory.mktemp("runtime")
    make_runtime_folder(folder)
    return folder


def call(function: Function, event: Any = None) -> Any:
    outcome = function.invoke(json.dumps(event or {"imports": []}).encode())
    assert outcome.function_error is None, outcome.payload
    return json.loads(outcome.payload)


def foreign(origins: dict[str, str], *folders: Path) -> dict[str, str]:
    """Returns the modules that are neither in these folders nor in the standard library."""
    known = (*folders, Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("platstdlib")))
    # Packages of an interpreter are installed below its standard library.
    packages = {"site-packages", "dist-packages"}

    def is_known(origin: Path) -> bool:
        return any(origin.is_relative_to(folder) for folder in known) and not packages & set(origin.parts)

    return {name: origin for name, origin in origins.items() if not is_known(Path(origin))}


def test_nothing_of_the_source_tree_or_the_environment_can_be_imported(
    make_function: MakeFunction, runtime_dir: Path, tmp_path: Path
) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    function = make_function(INSPECT_INTERPRETER, layers=(layer,), runtime_dir=runtime_dir)
    own = ["local", "catchlight", "functions", "tests", "catchlight_cli"]
    installed = ["moto", "boto3", "botocore", "httpx", "pydantic", "aws_lambda_powertools", "pip"]

    found = call(function, {"imports": ["simplejson", *own, *installed, "sandbox"]})

    assert found["importable"] == ["simplejson"]  # a dependency of the runtime's client
    assert found["flags"] == [1, 1]
    assert foreign(found["origins"], function.configuration.folder, layer, runtime_dir) == {}
    assert found["path"][:3] == [str(function.configuration.folder), str(layer), str(runtime_dir)]
    standard_library = Path(sysconfig.get_path("stdlib"))
    assert standard_library in map(Path, found["path"])
    for folder in map(Path, found["path"][3:]):
        assert folder.parent == standard_library or folder.parent == standard_library.parent


def test_without_isolation_modules_of_the_environment_can_be_imported(make_function: MakeFunction) -> None:
    function = make_function(INSPECT_INTERPRETER)

    found = call(function, {"imports": ["moto", "boto3"]})

    assert found["importable"] == ["moto", "boto3"]
    assert {"moto", "boto3", "awslambdaric"} <= foreign(found["origins"], function.configuration.folder).keys()


def test_the_environment_variables_of_lambda_name_the_folders(make_function: MakeFunction, runtime_dir: Path) -> None:
    function = make_function(INSPECT_INTERPRETER, runtime_dir=runtime_dir)

    environment = call(function)["environment"]

    assert environment["LAMBDA_TASK_ROOT"] == str(function.configuration.folder)
    assert environment["LAMBDA_RUNTIME_DIR"] == environment["PYTHONPATH"] == str(runtime_dir)


def test_modules_are_found_in_lambdas_order(make_function: MakeFunction, runtime_dir: Path, tmp_path: Path) -> None:
    runtime_dir = Path(shutil.copytree(runtime_dir, tmp_path / "runtime"))
    function = make_function(
        """
        import colorsys, second, tabnanny, third
        def handler(event, context):
            return [module.PLACE for module in (colorsys, second, third, tabnanny)]
        """,
        layers=(tmp_path / "layer1", tmp_path / "layer2"),
        runtime_dir=runtime_dir,
    )
    # Each folder shares a module with the next one. The first and the last module are also in the standard library.
    for place, folder, names in (
        ("function", function.configuration.folder, ["colorsys"]),
        ("layer1", tmp_path / "layer1", ["colorsys", "second"]),
        ("layer2", tmp_path / "layer2", ["second", "third"]),
        ("runtime", runtime_dir, ["third", "tabnanny"]),
    ):
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / f"{name}.py").write_text(f"PLACE = {place!r}")

    assert call(function) == ["function", "layer1", "layer2", "runtime"]


# ------------------------------------------------------------------------------------------------ the runtime's folder


def test_the_runtime_folder_has_only_the_client_and_its_dependencies(runtime_dir: Path) -> None:
    names = {path.name.partition(".")[0].partition("-")[0] for path in runtime_dir.iterdir()}

    assert names - {"__pycache__"} == {"awslambdaric", "runtime_client", "simplejson", "snapshot_restore_py"}


def test_without_the_native_client_functions_use_the_python_one(
    make_function: MakeFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locate = metadata.PathDistribution.locate_file

    class WithoutCompiledModules(metadata.Distribution):
        """A distribution without its compiled module, as on a machine for which there is none."""

        def __init__(self, found: metadata.Distribution) -> None:
            self._found = found

        @property
        def files(self) -> Any:
            return [file for file in self._found.files or () if not file.name.startswith("runtime_client.")]

        def read_text(self, filename: str) -> str | None:
            return self._found.read_text(filename)

        def locate_file(self, path: Any) -> Any:
            assert isinstance(self._found, metadata.PathDistribution)
            return locate(self._found, path)

    installed = metadata.distribution
    monkeypatch.setattr(metadata, "distribution", lambda name: WithoutCompiledModules(installed(name)))
    folder = tmp_path / "runtime"
    folder.mkdir()
    make_runtime_folder(folder)
    function = make_function(
        """
        import runtime_client
        def handler(event, context):
            return runtime_client.__file__
        """,
        runtime_dir=folder,
    )

    assert call(function) == str(folder / "runtime_client.py")
    assert (folder / "runtime_client.py").read_text() == Path(python_runtime_client.__file__).read_text()


def test_a_client_that_is_not_installed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_folder, "DISTRIBUTIONS", ("no-such-distribution",))

    with pytest.raises(LocalStackError, match="no-such-distribution is not installed: run `make setup`"):
        make_runtime_folder(tmp_path)


# ------------------------------------------------------------------------------------------------ built functions


@pytest.fixture
def origins_of(built: Artefact, runtime_dir: Path, tmp_path: Path, logs: LogFolder) -> Iterator[Callable[..., Any]]:
    """Imports these modules in the sandbox of a built function. Returns the file of each loaded module, by name."""
    with ExitStack() as functions:

        def origins_of(name: str, imports: str) -> Any:
            folder = tmp_path / "task"
            shutil.copytree(built.function(name), folder)
            (folder / "probe.py").write_text(f"{imports}\n{textwrap.dedent(INSPECT_INTERPRETER)}")
            configuration = FunctionConfiguration(
                name, "probe.handler", folder, layers=(built.layer,), timeout_seconds=60, runtime_dir=runtime_dir
            )
            function = Function(configuration, logs, {"POWERTOOLS_SERVICE_NAME": "tested"})
            functions.callback(function.stop)
            origins = call(function)["origins"]
            assert foreign(origins, folder, built.layer, runtime_dir) == {}
            assert origins["app"] == str(folder / "app.py")
            return origins

        yield origins_of


@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_imports_of_a_built_function_come_from_the_artefact(name: str, origins_of: Callable[..., Any]) -> None:
    assert "catchlight.models" in origins_of(name, "import app")


def test_every_module_of_the_built_layer_comes_from_the_artefact(origins_of: Callable[..., Any]) -> None:
    origins = origins_of(
        FUNCTIONS[0],
        "import pkgutil, importlib, app, catchlight\n"
        "for module in pkgutil.walk_packages(catchlight.__path__, 'catchlight.'):\n"
        "    importlib.import_module(module.name)",
    )

    assert {"catchlight.providers.nanobanana", "botocore.session"} <= origins.keys()


@pytest.mark.parametrize(("allowed", "passes"), [("127.0.0.1:8001", True), ("127.0.0.1:8002", False), ("", False)])
def test_an_image_host_is_allowed_only_at_its_address(
    allowed: str, passes: bool, make_function: MakeFunction, built: Artefact, runtime_dir: Path
) -> None:
    function = make_function(
        """
        import os
        from catchlight.errors import ImageRejectedError
        from catchlight.images.url_policy import UrlPolicy
        def handler(event, context):
            try:
                host = UrlPolicy().check_url("http://127.0.0.1:8001/a.png", ["*"])
            except ImageRejectedError:
                host = None
            return {"host": host, "variables": list(os.environ)}
        """,
        layers=(built.layer,),
        runtime_dir=runtime_dir,
        **{IMAGE_HOSTS_VARIABLE: allowed},
    )

    found = call(function)

    assert found["host"] == ("127.0.0.1" if passes else None)
    assert IMAGE_HOSTS_VARIABLE not in found["variables"]
