"""Lays out the output of `make build` as in Lambda, in a form that this machine can run."""

import compileall
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from py_compile import PycInvalidationMode
from tempfile import TemporaryDirectory

import botocore

from local.artefact import run_sam

REPOSITORY = Path(__file__).parents[2]
BUILD = REPOSITORY / ".aws-sam" / "benchmarks"
RUNTIME_VERSION = (3, 13)
# The date of all files in SAM's archives.
ARCHIVE_TIME = 315532800  # 1980-01-01
# The packages in Lambda's runtime: its own client, and boto3 with its dependencies.
RUNTIME_CLIENT = ("awslambdaric", "snapshot_restore_py.py", "simplejson", "runtime_client*.so")
RUNTIME_BOTO3 = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six.py", "urllib3")
# The HTTP client of the minimal handlers. It has bytecode, although `sam build` alone would not include any.
HTTPX = ("httpx", "httpcore", "h11", "anyio", "certifi", "idna", "typing_extensions.py")


def build() -> None:
    """Rebuilds `BUILD`, the functions and the layer, from the repository."""
    if sys.version_info[:2] != RUNTIME_VERSION:
        raise SystemExit(f"This needs Python {'.'.join(map(str, RUNTIME_VERSION))}, the version of Lambda's runtime.")
    pythons = {"BUILD_PYTHON": sys.executable, "RUNTIME_PYTHON": sys.executable}
    run_sam(["build", "--build-dir", str(BUILD)], {"AWS_DEFAULT_REGION": "us-east-1", **pythons})


@cache
def lay_out() -> Path:
    """Returns a folder with the files of a Lambda sandbox, shared by all benchmarks of a run.

    - `task/FUNCTION`: each built function, as in Lambda's /var/task
    - `opt/python`: the built layer, with compiled modules for this machine instead of those for arm64
    - `var/runtime`: Lambda's runtime, which is its client and boto3, with valid bytecode as in Lambda
    """
    folder = Path(_temporary().name)
    build()
    for function in BUILD.glob("*Function"):
        shutil.copytree(function, folder / "task" / function.name)
    shutil.copytree(BUILD / "CatchlightLayer" / "python", folder / "opt" / "python")
    _replace_compiled_modules(folder / "opt" / "python")
    runtime = folder / "var" / "runtime"
    copy_installed(RUNTIME_CLIENT + RUNTIME_BOTO3 + HTTPX, runtime)
    compile_unchecked(runtime)
    for path in folder.rglob("*"):
        os.utime(path, (ARCHIVE_TIME, ARCHIVE_TIME))
    return folder


@cache
def _temporary() -> "TemporaryDirectory[str]":
    # The cached folder is deleted at the end of the run.
    return TemporaryDirectory()


def copy_installed(patterns: Iterable[str], target: Path) -> None:
    """Copies packages and modules of this environment, by name patterns."""
    installed = Path(botocore.__file__).parents[1]
    target.mkdir(parents=True, exist_ok=True)
    for found in (path for pattern in patterns for path in installed.glob(pattern)):
        if found.is_dir():
            shutil.copytree(found, target / found.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(found, target)


def compile_unchecked(folder: Path) -> None:
    """Compiles bytecode that stays valid independently of the sources' dates."""
    compileall.compile_dir(folder, quiet=2, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)


def without_bytecode(folder: Path, copy: Path) -> Path:
    """Copies a folder without bytecode, as `sam build` alone would create it."""
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def packed_bytes(folder: Path) -> int:
    """Returns the size of a folder in the archive that SAM would upload."""
    archive = shutil.make_archive(str(folder.parent / f"{folder.name}-packed"), "zip", folder)
    return Path(archive).stat().st_size


def _replace_compiled_modules(layer: Path) -> None:
    if platform.machine() == "aarch64":
        return
    for compiled in layer.rglob("*.so"):
        package = compiled.relative_to(layer).parts[0]
        assert (layer / f"{package}-{version(package)}.dist-info").exists(), (
            f"another version of {package} is installed"
        )
        compiled.unlink()
        specification = importlib.util.find_spec(f"{package}.{compiled.name.partition('.')[0]}")
        assert specification is not None
        assert specification.origin is not None
        shutil.copy(specification.origin, compiled.parent)
