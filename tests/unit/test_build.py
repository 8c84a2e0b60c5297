"""What is in the artefact besides the sources: bytecode that Lambda takes, a botocore without what is not used."""

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

from image_tasks.aws_clients import AwsClients

REPOSITORY = Path(__file__).parents[2]
LAYER = REPOSITORY / "layers" / "image_tasks" / "python"
FUNCTIONS = sorted(path.parent for path in REPOSITORY.glob("functions/*/Makefile"))
# PEP 552: the file is named by its source's hash, and that is not to be looked at.
UNCHECKED_HASH = 0b01

botocore_folder = Path(botocore.__file__).parent


def read_header(bytecode: Path) -> tuple[bytes, int]:
    """Magic number and flags of a .pyc file."""
    header = bytecode.read_bytes()[:8]
    return header[:4], int.from_bytes(header[4:], "little")


def make(folder: Path, target: str, artifacts: Path, **variables: str) -> None:
    environment = {**os.environ, "ARTIFACTS_DIR": str(artifacts), **variables}
    subprocess.run(["make", "--silent", "-C", str(folder), target], env=environment, check=True, capture_output=True)


def target_of(folder: Path) -> str:
    return f"build-{''.join(word.title() for word in folder.name.split('_'))}Function"


# ------------------------------------------------------------------------------------------------ bytecode


@pytest.mark.parametrize("folder", FUNCTIONS, ids=lambda folder: folder.name)
def test_functions_come_with_bytecode_that_needs_no_dates(folder: Path, tmp_path: Path) -> None:
    make(folder, target_of(folder), tmp_path, RUNTIME_PYTHON=sys.executable)

    assert (tmp_path / "app.py").read_bytes() == (folder / "app.py").read_bytes()
    (bytecode,) = tmp_path.rglob("*.pyc")
    assert bytecode.name == f"app.{sys.implementation.cache_tag}.pyc"
    assert read_header(bytecode) == (importlib.util.MAGIC_NUMBER, UNCHECKED_HASH)
    assert str(tmp_path).encode() not in bytecode.read_bytes()
    assert b"/var/task/app.py" in bytecode.read_bytes()


def test_without_the_runtimes_python_there_is_a_function_all_the_same(tmp_path: Path) -> None:
    make(FUNCTIONS[0], target_of(FUNCTIONS[0]), tmp_path)

    assert [path.name for path in tmp_path.rglob("*")] == ["app.py"]


def test_every_function_is_built_so() -> None:
    template = yaml.load((REPOSITORY / "template.yaml").read_text(), Loader=_Loader)
    functions = {
        Path(resource["Properties"]["CodeUri"]).name
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    }

    assert functions == {folder.name for folder in FUNCTIONS}


class _Loader(yaml.SafeLoader):
    """Reads a template; what its short functions say is of no interest here."""


_Loader.add_multi_constructor("!", lambda *_: None)


def test_only_the_runtimes_own_version_makes_its_bytecode() -> None:
    found = subprocess.run(
        [REPOSITORY / "scripts" / "find-python", "--exactly", "3.13"], capture_output=True, text=True, check=True
    ).stdout.strip()

    if not found:
        pytest.skip("no Python 3.13 here: `make build` says so, and makes no bytecode")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("Python 3.13.")


# ------------------------------------------------------------------------------------------------ botocore


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """botocore as it is in the layer, in a folder of its own."""
    slim = tmp_path_factory.mktemp("slim") / "botocore"
    shutil.copytree(botocore_folder, slim, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, LAYER / "slim_botocore.py", slim], check=True)
    return slim


OPERATIONS = """
import json, sys
sys.path.insert(0, sys.argv[1])
import botocore.session
assert botocore.__file__.startswith(sys.argv[1]), botocore.__file__
session = botocore.session.get_session()
clients = {name: session.create_client(name, region_name=region)
           for name in json.loads(sys.argv[2]) for region in ["eu-central-1"]}
known = {name: sorted(client.meta.service_model.operation_names) for name, client in clients.items()}
endpoints = {f"{name} {region}": session.create_client(name, region_name=region).meta.endpoint_url
             for name in clients for region in ("us-east-1", "eu-central-1", "cn-north-1", "us-gov-west-1")}
shapes = {name: {shape: sorted(getattr(client.meta.service_model.shape_for(shape), "members", {}))
          for shape in client.meta.service_model.shape_names} for name, client in clients.items()}
print(json.dumps([known, endpoints, shapes]))
"""


def described(folder: Path) -> Any:
    """Operations, endpoints and shapes of the services of `AwsClients`, as that botocore knows them."""
    made = [getattr(AwsClients(), name)() for name in vars(AwsClients) if not name.startswith("_")]
    services = json.dumps([client.meta.service_model.service_name for client in made])
    ended = subprocess.run(
        [sys.executable, "-c", OPERATIONS, str(folder.parent), services], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_slim_botocore_knows_of_our_services_what_the_whole_one_knows(slim: Path) -> None:
    assert described(slim) == described(botocore_folder)


def test_a_slim_botocore_has_no_other_service_and_no_prose(slim: Path) -> None:
    folders = {path.name for path in (slim / "data").iterdir() if path.is_dir()}
    assert len(folders) == len([name for name in vars(AwsClients) if not name.startswith("_")])
    assert not list((slim / "data").rglob("*.gz"))
    assert b'"documentation":"<p>' not in b"".join(
        path.read_bytes() for path in (slim / "data").rglob("service-2.json")
    )
    assert sum(path.stat().st_size for path in (slim / "data").rglob("*.json")) < 1_500_000
