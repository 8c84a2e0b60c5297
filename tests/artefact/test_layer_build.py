"""Tests what the build adds to the sources and removes from dependencies: bytecode, and botocore's unused services."""

import gzip
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import botocore
import pytest
import yaml

from catchlight.aws.clients import AwsClients
from scripts.try_wheel import find_python

REPOSITORY = Path(__file__).parents[2]
LAYER = REPOSITORY / "layers" / "catchlight" / "python"
FUNCTIONS = sorted(path.parent for path in REPOSITORY.glob("functions/*/Makefile"))
# PEP 552: the file has its source's hash, which Python does not check.
UNCHECKED_HASH = 0b01

botocore_folder = Path(botocore.__file__).parent


def read_header(bytecode: Path) -> tuple[bytes, int]:
    """Returns the magic number and the flags of a .pyc file."""
    header = bytecode.read_bytes()[:8]
    return header[:4], int.from_bytes(header[4:], "little")


def make(folder: Path, target: str, artifacts: Path, **variables: str) -> None:
    environment = {**os.environ, "ARTIFACTS_DIR": str(artifacts), **variables}
    subprocess.run(["make", "--silent", "-C", str(folder), target], env=environment, check=True, capture_output=True)


def target_of(folder: Path) -> str:
    return f"build-{''.join(word.title() for word in folder.name.split('_'))}Function"


# ------------------------------------------------------------------------------------------------ bytecode


@pytest.mark.parametrize("folder", FUNCTIONS, ids=lambda folder: folder.name)
def test_functions_have_bytecode_that_does_not_depend_on_dates(folder: Path, tmp_path: Path) -> None:
    make(folder, target_of(folder), tmp_path, RUNTIME_PYTHON=sys.executable)

    assert (tmp_path / "app.py").read_bytes() == (folder / "app.py").read_bytes()
    (bytecode,) = tmp_path.rglob("*.pyc")
    assert bytecode.name == f"app.{sys.implementation.cache_tag}.pyc"
    assert read_header(bytecode) == (importlib.util.MAGIC_NUMBER, UNCHECKED_HASH)
    assert str(tmp_path).encode() not in bytecode.read_bytes()
    assert b"/var/task/app.py" in bytecode.read_bytes()


def test_without_the_runtimes_python_a_function_is_built_without_bytecode(tmp_path: Path) -> None:
    make(FUNCTIONS[0], target_of(FUNCTIONS[0]), tmp_path)

    assert [path.name for path in tmp_path.rglob("*")] == ["app.py"]


def test_every_function_has_a_makefile() -> None:
    template = yaml.load((REPOSITORY / "template.yaml").read_text(), Loader=_Loader)
    functions = {
        Path(resource["Properties"]["CodeUri"]).name
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    }

    assert functions == {folder.name for folder in FUNCTIONS}


class _Loader(yaml.SafeLoader):
    """Reads a template and ignores its intrinsic functions."""


_Loader.add_multi_constructor("!", lambda *_: None)


def test_find_python_returns_the_runtimes_version_only() -> None:
    found = find_python("3.13")

    if not found:
        pytest.skip("Python 3.13 is not installed")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("Python 3.13.")


# ------------------------------------------------------------------------------------------------ botocore


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of botocore, slimmed as in the layer."""
    slim = tmp_path_factory.mktemp("slim") / "botocore"
    shutil.copytree(botocore_folder, slim, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, LAYER / "slim_botocore.py", slim], check=True)
    return slim


# Prints what botocore reads of each service, without documentation. Creating a link loads what requests to S3 need.
OPERATIONS = """
import json, sys
sys.path.insert(0, sys.argv[1])
import botocore.session
assert botocore.__file__.startswith(sys.argv[1]), botocore.__file__
session = botocore.session.get_session()
session.set_credentials("access-key", "secret-key")
regions = ("us-east-1", "eu-central-1", "cn-north-1", "us-gov-west-1")
clients = {(name, region): session.create_client(name, region_name=region)
           for name in json.loads(sys.argv[2]) for region in regions}
known = {name: sorted(client.meta.service_model.operation_names) for (name, _), client in clients.items()}
endpoints = {f"{name} {region}": client.meta.endpoint_url for (name, region), client in clients.items()}
shapes = {name: {shape: sorted(getattr(client.meta.service_model.shape_for(shape), "members", {}))
          for shape in client.meta.service_model.shape_names} for (name, _), client in clients.items()}
models = {name: client.meta.service_model for (name, _), client in clients.items()}
parameters = {name: [(each.name, each.type) for each in model.client_context_parameters]
              for name, model in models.items()}
s3 = {region: clients["s3", region] for region in regions}
links = {region: client.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "key"}).partition("?")[0]
         for region, client in s3.items()}
print(json.dumps([known, endpoints, shapes, parameters, links]))
"""


def described(folder: Path) -> Any:
    """Returns the data that this botocore reads of the services of `AwsClients`."""
    made = [getattr(AwsClients(), name)() for name in vars(AwsClients) if not name.startswith("_")]
    services = json.dumps([client.meta.service_model.service_name for client in made])
    ended = subprocess.run(
        [sys.executable, "-c", OPERATIONS, str(folder.parent), services], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_slim_botocore_reads_the_same_data_of_our_services_as_the_whole_one(slim: Path) -> None:
    assert described(slim) == described(botocore_folder)


def model(folder: Path, service: str) -> dict[str, Any]:
    """Returns the service model of this botocore."""
    (path,) = sorted((folder / "data" / service).glob("*/service-2.json*"))[-1:]
    content = path.read_bytes()
    loaded: dict[str, Any] = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    return loaded


@pytest.mark.parametrize("service", ["dynamodb", "events", "s3", "secretsmanager", "sqs", "stepfunctions"])
def test_a_slim_model_lacks_documentation_and_nothing_else(slim: Path, service: str) -> None:
    whole = model(botocore_folder, service)
    shapes = whole["shapes"].values()
    members = [member for shape in shapes for member in shape.get("members", {}).values()]
    for documented in (whole, *whole["operations"].values(), *shapes, *members):
        documented.pop("documentation", None)

    assert model(slim, service) == whole


def test_a_slim_botocore_has_no_other_service_and_no_examples(slim: Path) -> None:
    folders = {path.name for path in (slim / "data").iterdir() if path.is_dir()}
    assert len(folders) == len([name for name in vars(AwsClients) if not name.startswith("_")])
    assert not list((slim / "data").rglob("*.gz"))
    assert not list((slim / "data").rglob("examples*"))
    assert sum(path.stat().st_size for path in (slim / "data").rglob("*.json")) < 1_500_000


def test_a_service_that_botocore_does_not_have_stops_the_build(slim: Path, tmp_path: Path) -> None:
    copy = tmp_path / "botocore"
    shutil.copytree(slim, copy, ignore=shutil.ignore_patterns("*.py"))
    shutil.rmtree(copy / "data" / "sqs")

    ended = subprocess.run(
        [sys.executable, LAYER / "slim_botocore.py", copy], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 1
    assert "has no service sqs: correct SERVICES in slim_botocore.py" in ended.stderr
