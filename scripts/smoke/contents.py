"""Compares an artefact with its sources, file by file.

Every file must be a file of a pinned dependency as recorded by its wheel, a file of the source tree, slimmed data of
botocore, or the bytecode of one of these. No such file may be missing, and no other file may exist.
"""

import _imp
import csv
import importlib.util
import marshal
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from types import CodeType

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from local.artefact import LAYER, Artefact
from local.template.parse import read_template
from scripts.smoke.botocore_data import DATA, check_data, record_digest
from scripts.smoke.wheels import check_machine, check_tags

# PEP 552: bytecode with the hash of its source, which Python does not check. Dates are useless: SAM sets all to 1980.
UNCHECKED_HASH = 1
# Lambda's magic number: https://github.com/python/cpython/blob/3.13/Include/internal/pycore_magic_number.h
MAGIC_NUMBER_3_13 = (3571).to_bytes(2, "little") + b"\r\n"
# Zipped. Lambda downloads and unpacks the layer before a cold start. With all of botocore and no bytecode: 21 MB.
MAX_LAYER_BYTES = 10_500_000
# Properties that `sam build` changes in a template, besides SamResourceId.
_LOCATIONS = ("CodeUri", "ContentUri", "DefinitionUri")


@dataclass(frozen=True)
class Target:
    """The machine and interpreter that a build is for."""

    machine: str
    python: str  # version, such as 3.13
    magic_number: bytes
    has_bytecode: bool = True

    @property
    def cache_tag(self) -> str:
        """Part of the names of bytecode files, such as cpython-313."""
        return f"cpython-{self.python.replace('.', '')}"

    @property
    def is_this_interpreter(self) -> bool:
        """Whether this interpreter can load the target's bytecode."""
        return self.magic_number == importlib.util.MAGIC_NUMBER


@dataclass(frozen=True)
class Build(Artefact):
    """An output folder of `sam build`, and the project that was built."""

    project: Path
    target: Target

    @property
    def layer_source(self) -> Path:
        """The folder of the layer's Makefile."""
        return self.project / "layers" / "catchlight" / "python"


def check_contents(build: Build) -> Iterator[str]:
    """Yields the problems of the whole artefact, each with its file."""
    template = read_template((build.project / "template.yaml").read_text())
    resources = template["Resources"]
    functions = {
        name: build.project / resource["Properties"]["CodeUri"]
        for name, resource in resources.items()
        if resource["Type"] == "AWS::Serverless::Function"
    }
    yield from _check_template(build, template)
    built = {path.name for path in build.folder.iterdir()}
    wanted = {*functions, LAYER, "template.yaml"}
    for name in sorted(built ^ wanted):
        yield f"{name} {'is missing in' if name in wanted else 'does not belong in'} {build.folder}"
    for name, source in functions.items():
        if name in built:
            yield from _check_function(build, build.function(name), source)
    if LAYER in built:
        yield from _check_layer(build)


def _check_template(build: Build, source: Mapping[str, object]) -> Iterator[str]:
    built = read_template(build.template.read_text()) if build.template.is_file() else {}
    if _without_locations(built) != _without_locations(source):
        yield "template.yaml: the built template differs from the project's"


def _without_locations(part: object) -> object:
    match part:
        case dict():
            return {
                name: _without_locations(value)
                for name, value in part.items()
                if name not in (*_LOCATIONS, "SamResourceId") and value != {}
            }
        case list():
            return [_without_locations(value) for value in part]
    return part


def _check_function(build: Build, folder: Path, source: Path) -> Iterator[str]:
    expected = {Path(path.name): record_digest(path.read_bytes()) for path in source.glob("*.py")}
    yield from _check_files(build, folder, expected)


def _check_layer(build: Build) -> Iterator[str]:
    top = build.layer.parent
    for path in top.iterdir():
        if path != build.layer:
            yield f"{path.relative_to(build.folder)}: a layer has the folder python/ only"
    package = build.layer_source / "catchlight"
    expected: dict[Path, str | None] = {
        path.relative_to(build.layer_source): record_digest(path.read_bytes())
        for path in package.rglob("*")
        # The client is for programs outside Lambda: the layer's Makefile leaves it out.
        if path.is_file() and "__pycache__" not in path.parts and not path.is_relative_to(package / "client")
    }
    installed = {canonicalize_name(each.name): each for each in distributions(path=[str(build.layer)])}
    pinned = dict(_pinned(build.layer_source / "requirements.txt", build.target.python))
    for extra in sorted(installed.keys() - pinned):
        yield f"{extra} is in the layer, but not in requirements.txt"
    for name, version in pinned.items():
        if name not in installed:
            yield f"{name} is not in the layer: requirements.txt pins {version}"
            continue
        found = installed[name]
        if found.version != version:
            yield f"{name} {found.version} is in the layer: requirements.txt pins {version}"
        try:
            recorded = dict(_recorded(found))
            yield from check_tags(found, build.target.python, build.target.machine)
        except Exception as exc:  # noqa: BLE001 - a damaged RECORD raises anything
            yield f"{name}: its RECORD or WHEEL cannot be read: {exc!r}"
            continue
        expected |= recorded
    data = {path: digest for path, digest in expected.items() if path.is_relative_to(DATA)}
    yield from check_data(build.layer, data, build.layer_source / "catchlight" / "aws" / "clients.py")
    expected = {path: digest for path, digest in expected.items() if path not in data}
    yield from _check_files(build, build.layer, expected)
    yield from check_machine(build.layer, build.target.machine)


def _pinned(requirements: Path, python: str) -> Iterator[tuple[NormalizedName, str]]:
    """Yields names and versions of the requirements that apply to this version of Python on Linux."""
    target = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    for line in re.findall(r"^[a-z].*?(?= *\\?$)", requirements.read_text(), re.MULTILINE):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(target):
            (pin,) = requirement.specifier
            yield canonicalize_name(requirement.name), pin.version


def _recorded(distribution: Distribution) -> Iterator[tuple[Path, str | None]]:
    """Yields the files of a wheel with the SHA-256 in its RECORD; None for RECORD itself."""
    # Not `Distribution.files`: it leaves out files that are missing.
    for name, digest, _ in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        path = Path(name)
        # Without console scripts, which the build removes, and bytecode, which it compiles itself.
        if path.parts[0] not in ("..", "bin") and path.suffix != ".pyc":
            yield path, digest.removeprefix("sha256=") or None


def _check_files(build: Build, folder: Path, expected: Mapping[Path, str | None]) -> Iterator[str]:
    """Yields problems of a folder that must contain these files and their bytecode, and nothing else."""
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    found = {path for path in found if not path.is_relative_to(DATA)}
    bytecode = {}
    if build.target.has_bytecode:
        tag = build.target.cache_tag
        bytecode = {
            path.parent / "__pycache__" / f"{path.stem}.{tag}.pyc": path for path in expected if path.suffix == ".py"
        }
    shown = folder.relative_to(build.folder)
    for path in sorted(found - expected.keys() - bytecode.keys()):
        yield f"{shown / path}: belongs to no source and no dependency"
    for path in sorted((expected.keys() | bytecode.keys()) - found):
        yield f"{shown / path}: is missing"
    for path in sorted(found & expected.keys()):
        content = (folder / path).read_bytes()
        if (folder / path).is_symlink():
            yield f"{shown / path}: is a link, which Lambda cannot follow"
        elif expected[path] not in (None, record_digest(content)):
            yield f"{shown / path}: differs from its source or its wheel"
    for path in sorted(found & bytecode.keys()):
        if problem := _bytecode_problem(build.target, folder, path, bytecode[path]):
            yield f"{shown / path}: {problem}"


def _bytecode_problem(target: Target, folder: Path, path: Path, source: Path) -> str | None:
    """Returns why bytecode is wrong, or why Lambda would ignore it and compile at every cold start; None if valid."""
    content = (folder / path).read_bytes()
    if content[:4] != target.magic_number:
        return "is bytecode of another Python"
    if content[4:8] != UNCHECKED_HASH.to_bytes(4, "little"):
        return "is bytecode that depends on its source's date"
    if not (folder / source).is_file() or content[8:16] != _source_hash(target, (folder / source).read_bytes()):
        return "is bytecode of another source"
    if target.is_this_interpreter:
        return _code_problem(content[16:], folder, source)
    return None


def _source_hash(target: Target, source: bytes) -> bytes:
    """Returns the source hash that the target's interpreter writes. It is keyed with the interpreter's magic number."""
    return _imp.source_hash(int.from_bytes(target.magic_number, "little"), source)


def _code_problem(code: bytes, folder: Path, source: Path) -> str | None:
    try:
        # bandit warns of untrusted bytecode; this bytecode has just been compiled by the build.
        loaded = marshal.loads(code)  # noqa: S302  # nosec B302
    except (EOFError, ValueError, TypeError):
        return "is damaged bytecode"
    place = "/opt/python" if folder.name == "python" else "/var/task"
    if not isinstance(loaded, CodeType) or loaded.co_filename != f"{place}/{source}":
        return f"names another file than {place}/{source} in tracebacks"
    return None


def lambda_target(*, has_bytecode: bool) -> Target:
    """Returns the target of the template: python3.13 on arm64."""
    magic_number = importlib.util.MAGIC_NUMBER if sys.version_info[:2] == (3, 13) else MAGIC_NUMBER_3_13
    return Target("aarch64", "3.13", magic_number, has_bytecode)


def target_here() -> Target:
    """Returns this machine and this interpreter as a target."""
    version = ".".join(map(str, sys.version_info[:2]))
    return Target(platform.machine(), version, importlib.util.MAGIC_NUMBER)
