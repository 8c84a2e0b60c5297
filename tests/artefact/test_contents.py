"""Tests that the smoke test finds each fault in the contents of an artefact."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from local import REPOSITORY
from local.artefact import Artefact
from scripts.smoke.contents import Build, Target, _source_hash, check_contents
from tests.artefact.conftest import HERE, Copy, copy_of, remove_bundles

LAYER = "CatchlightLayer/python"
DATA = f"{LAYER}/botocore/data"
MODULES = f"{LAYER}/catchlight"
TAG = f"{sys.implementation.cache_tag}.pyc"

Fault = Callable[[Copy], None]


def removed(path: str) -> Fault:
    return lambda copy: copy.remove(path)


def written(path: str, content: bytes = b"") -> Fault:
    return lambda copy: copy.write(path, content)


def changed(path: str, change: Callable[[bytes], bytes]) -> Fault:
    return lambda copy: copy.change(path, change)


def data(path: str, change: Callable[[Any], Any]) -> Fault:
    return lambda copy: copy.change_data(path, change)


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def for_another_machine(library: bytes) -> bytes:
    return library[:18] + b"\x28\x00" + library[20:]  # ARM, 32 bits


def by_date(bytecode: bytes) -> bytes:
    return bytecode[:4] + bytes(4) + bytecode[8:]


def rename_handler(copy: Copy) -> None:
    (copy.folder / "PublishEventsFunction" / "app.py").rename(copy.folder / "PublishEventsFunction" / "main.py")


def link(copy: Copy) -> None:
    copy.remove(f"{MODULES}/errors.py")
    (copy.folder / MODULES / "errors.py").symlink_to(copy.layer_source / "catchlight" / "errors.py")


def lose_china(endpoints: Any) -> None:
    endpoints["partitions"] = [each for each in endpoints["partitions"] if each["partition"] != "aws-cn"]


# Each fault with the expected message. One copy has all faults, so that the test also shows that none hides another.
FAULTS: dict[str, tuple[Fault, str]] = {
    # botocore's data
    "documentation that requests to S3 need": (
        data("s3/2006-03-01/service-2.json", lambda model: model["clientContextParams"]["Accelerate"].clear()),
        "s3/2006-03-01/service-2.json: lacks or changes clientContextParams/Accelerate/",
    ),
    "an error's shape": (
        data(
            "dynamodb/2012-08-10/service-2.json", lambda model: model["shapes"].pop("ConditionalCheckFailedException")
        ),
        "dynamodb/2012-08-10/service-2.json: lacks or changes shapes/ConditionalCheckFailedException",
    ),
    "another API version": (
        data("events/2015-10-07/service-2.json", lambda model: model["metadata"].update(apiVersion="2014-02-03")),
        "events/2015-10-07/service-2.json: lacks or changes metadata/apiVersion",
    ),
    "half a model": (
        changed(f"{DATA}/sqs/2012-11-05/service-2.json", truncated),
        "sqs/2012-11-05/service-2.json: is not JSON",
    ),
    "a service": (removed(f"{DATA}/stepfunctions"), "stepfunctions/2016-11-23/service-2.json: is missing"),
    "another service": (written(f"{DATA}/ec2/2016-11-15/service-2.json", b"{}"), "service-2.json: is not used by"),
    "no endpoint rules of S3": (
        removed(f"{DATA}/s3/2006-03-01/endpoint-rule-set-1.json"),
        "s3/2006-03-01/endpoint-rule-set-1.json: is missing",
    ),
    "an endpoint rule": (
        data("dynamodb/2012-08-10/endpoint-rule-set-1.json", lambda rules: rules["rules"].pop()),
        "dynamodb/2012-08-10/endpoint-rule-set-1.json: lacks or changes rules",
    ),
    "paginators": (removed(f"{DATA}/sqs/2012-11-05/paginators-1.json"), "sqs/2012-11-05/paginators-1.json: is missing"),
    "waiters": (written(f"{DATA}/s3/2006-03-01/waiters-2.json", b"{}"), "s3/2006-03-01/waiters-2.json: differs"),
    "retries": (removed(f"{DATA}/_retry.json"), "_retry.json: is missing"),
    "defaults": (written(f"{DATA}/sdk-default-configuration.json", b"{}"), "sdk-default-configuration.json: differs"),
    "half the partitions": (changed(f"{DATA}/partitions.json", truncated), "partitions.json: differs"),
    "endpoints of China": (data("endpoints.json", lose_china), "endpoints.json: lacks or changes partitions"),
    "a model that is not slimmed": (
        written(f"{DATA}/sqs/2012-11-05/service-2.json.gz"),
        "service-2.json.gz: is not used",
    ),
    # dependencies
    "no CA bundle": (remove_bundles, "certifi/cacert.pem: is missing"),
    "half a module": (
        changed(f"{LAYER}/httpcore/_api.py", truncated),
        "httpcore/_api.py: differs from its source",
    ),
    "a module of a dependency": (removed(f"{LAYER}/h11/_events.py"), "h11/_events.py: is missing"),
    "a package without its record": (removed(f"{LAYER}/jmespath-*.dist-info"), "jmespath is not in the layer"),
    "an empty record": (
        changed(f"{LAYER}/six-*.dist-info/RECORD", lambda _: b""),
        f"{LAYER}/six.py: belongs to no source and no dependency",
    ),
    "another version": (
        changed(f"{LAYER}/h11-*.dist-info/METADATA", lambda text: text.replace(b"\nVersion: ", b"\nVersion: 0.")),
        "is in the layer: requirements.txt pins",
    ),
    "another dependency": (
        written(f"{LAYER}/boto3-1.40.0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: boto3\nVersion: 1.40.0\n"),
        "boto3 is in the layer, but not in requirements.txt",
    ),
    "tests": (written(f"{LAYER}/tests/test_x.py"), "tests/test_x.py: belongs to no source"),
    "console scripts": (written(f"{LAYER}/bin/jp.py"), "bin/jp.py: belongs to no source"),
    # the package
    "a provider": (removed(f"{MODULES}/providers/nanobanana.py"), "providers/nanobanana.py: is missing"),
    "py.typed": (removed(f"{MODULES}/py.typed"), "catchlight/py.typed: is missing"),
    "a stale module": (written(f"{MODULES}/old.py"), "catchlight/old.py: belongs to no source"),
    "another module": (
        changed(f"{MODULES}/models.py", lambda text: text + b"\n"),
        "models.py: differs from its source",
    ),
    "a link": (link, "catchlight/errors.py: is a link, which Lambda cannot follow"),
    "a file beside the layer": (
        written("CatchlightLayer/requirements.txt"),
        "a layer has the folder python/ only",
    ),
    # bytecode
    "no bytecode": (removed(f"{MODULES}/__pycache__/models.{TAG}"), f"models.{TAG}: is missing"),
    "bytecode of another Python": (
        changed(f"{MODULES}/__pycache__/settings.{TAG}", lambda code: b"\x00\x00\r\n" + code[4:]),
        f"settings.{TAG}: is bytecode of another Python",
    ),
    "bytecode with a date": (
        changed(f"{MODULES}/observability/__pycache__/metrics.{TAG}", by_date),
        f"metrics.{TAG}: is bytecode that depends on its source's date",
    ),
    "bytecode of another source": (
        changed(f"{MODULES}/polling/__pycache__/status_lookup.{TAG}", lambda code: code[:8] + bytes(8) + code[16:]),
        f"status_lookup.{TAG}: is bytecode of another source",
    ),
    "half the bytecode": (
        changed(f"{MODULES}/recovery/__pycache__/redrive.{TAG}", truncated),
        f"redrive.{TAG}: is damaged bytecode",
    ),
    # functions
    "a function": (removed("PollTasksFunction"), "PollTasksFunction is missing in"),
    "a stale function": (written("OldFunction/app.py"), "OldFunction does not belong in"),
    "a module with another name": (rename_handler, "PublishEventsFunction/app.py: is missing"),
    "another function's module": (
        changed("ReconcileTasksFunction/app.py", lambda text: text.replace(b"1", b"2")),
        "ReconcileTasksFunction/app.py: differs from its source",
    ),
    "an additional file": (
        written("DispatchChangesFunction/notes.txt"),
        "DispatchChangesFunction/notes.txt: belongs to no",
    ),
    "another template": (
        changed("template.yaml", lambda text: text.replace(b"Handler: app.handler", b"Handler: app.main")),
        "template.yaml: the built template differs from",
    ),
}


@pytest.fixture(scope="module")
def problems(built: Artefact, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Returns the problems of a copy with all faults."""
    copy = copy_of(built, tmp_path_factory.mktemp("damaged") / "build")
    for fault, _ in FAULTS.values():
        fault(copy)
    copy.change(f"{LAYER}/pydantic_core/*.so", for_another_machine)
    copy.change(f"{LAYER}/pydantic_core-*.dist-info/WHEEL", lambda wheel: wheel.replace(b"cp3", b"cp2"))
    return list(check_contents(copy))


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found(problems: list[str], name: str) -> None:
    expected = FAULTS[name][1]

    assert [problem for problem in problems if expected in problem], problems


def test_a_library_for_another_machine_is_found(problems: list[str]) -> None:
    assert [problem for problem in problems if "_pydantic_core" in problem and "is not a Linux library for" in problem]
    assert [problem for problem in problems if "pydantic" in problem and "its wheel is for cp2" in problem]


def test_the_artefact_has_no_fault(built: Artefact) -> None:
    assert list(check_contents(Build(built.folder, REPOSITORY, HERE))) == []


def test_a_build_for_another_version_of_python_has_other_names_and_wheels(built: Artefact) -> None:
    another = replace(HERE, python="3.99")

    problems = list(check_contents(Build(built.folder, REPOSITORY, another)))

    assert f"{MODULES}/__pycache__/models.cpython-399.pyc: is missing" in problems
    assert f"{MODULES}/__pycache__/models.{TAG}: belongs to no source and no dependency" in problems
    assert [problem for problem in problems if "pydantic" in problem and "not for python3.99 on" in problem]


def test_sources_are_hashed_as_the_targets_interpreter_does() -> None:
    another = Target("x86_64", "3.11", b"\xa7\r\r\n")

    assert _source_hash(another, b"x = 1\n").hex() == "4c0372aa93f75252"  # importlib.util.source_hash of Python 3.11
