"""Rehearses updates and the deletion: an update changes the expected resources only; table and bucket are retained."""

import shutil
from collections.abc import Callable
from pathlib import Path

from local import REPOSITORY
from local.artefact import Artefact, built_artefact, source_files
from scripts.rehearsal.deployment import Deployment, State, changes
from scripts.rehearsal.report import Report
from scripts.rehearsal.stack_checks import StackChecks, expect

VERSION = "ReceiveCallbackFunctionVersion"


def updates(
    report: Report, deployment: Deployment, artefact: Artefact, checks: StackChecks, sources: Path, python: Path
) -> None:
    """Deploys several updates; checks that each changes the expected resources only, and that tasks still work.

    `sources` is a copy of the sources of `artefact`; it is changed and built with the interpreter `python`.
    """

    def update(what: str, artefact: Artefact, expected: Callable[[State], dict[str, set[str]]], **given: str) -> None:
        report.progress(f"sam deploy: {what}.")
        before = deployment.state()
        deployment.deploy(artefact, **given)
        after = deployment.state()
        found, wanted = changes(before, after), expected(after)
        expect(_comparable(found) == _comparable(wanted), f"{what}: the changes are {wanted}, not {found}")
        checks.wrong_token()
        report.verified(what, ", ".join(sorted(found)) or "no changes")

    alias, function = "ReceiveCallbackFunctionAliaslive", "ReceiveCallbackFunction"
    update("the same build again", artefact, lambda _: {})
    append_comment(sources / "functions/receive_callback/app.py")
    changed = built_artefact(report.progress, sources, python)
    update(
        "one function and one parameter changed, after a new build",
        changed,
        lambda _: {
            function: {"CodeSha256"},
            alias: {"Version"},
            "Parameters": {"CallbackRateLimit"},
            **_replaced(VERSION),
        },
        CallbackRateLimit="50",
    )
    update(
        "a parameter of the callback function changed",
        changed,
        lambda state: {
            function: {"SnapStart"},
            alias: {"Version"},
            "Parameters": {"SnapStart"},
            next(name for name in state if name.startswith(VERSION)): {"PhysicalId"},
        },
        SnapStart="PublishedVersions",
    )
    # Changes the built layer instead of the sources, which saves a build: the updates above show that builds are
    # reproducible.
    append_comment(changed.layer / "catchlight" / "models.py")
    update(
        "the package changed",
        changed,
        lambda state: {
            **{name: {"Layers"} for name in state if name.endswith("Function")},
            alias: {"Version"},
            next(name for name in state if name.startswith(VERSION)): {"PhysicalId"},
            **_replaced("CatchlightLayer"),
        },
    )
    checks.one_task()


def deletion(report: Report, deployment: Deployment) -> dict[str, str]:
    """Deletes the stack; checks that the functions are deleted, and that table and bucket remain.

    Returns the names of the table and the bucket by logical id.
    """
    report.progress("sam delete.")
    resources = deployment.resources()
    deployment.delete()
    tables = deployment.ministack.client("dynamodb").list_tables()["TableNames"]
    buckets = [bucket["Name"] for bucket in deployment.ministack.client("s3").list_buckets()["Buckets"]]
    functions = deployment.ministack.client("lambda").list_functions()["Functions"]
    expect(resources["TasksTable"] in tables, "the table is retained")
    expect(resources["ImagesBucket"] in buckets, "the bucket is retained")
    expect(functions == [], f"all functions are deleted: {[each['FunctionName'] for each in functions]}")
    report.verified("sam delete", "functions deleted, table and bucket retained")
    return {name: resources[name] for name in ("TasksTable", "ImagesBucket")}


def _replaced(prefix: str) -> dict[str, set[str]]:
    return {prefix: {"added"}, f"{prefix} before": {"removed"}}


def _comparable(found: dict[str, set[str]]) -> list[tuple[str, list[str]]]:
    """Returns changes in a comparable form: the hash that SAM appends to some logical ids is removed."""
    prefixes = (VERSION, "CatchlightLayer")
    return sorted(
        (next((p for p in prefixes if name.startswith(p)), name), sorted(keys)) for name, keys in found.items()
    )


def copy_sources(folder: Path) -> Path:
    """Copies all sources of a build into a new folder."""
    for source in source_files(REPOSITORY):
        copy = folder / source.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
    return folder


def append_comment(module: Path) -> None:
    """Changes a module's file without changing its behaviour."""
    module.write_text(module.read_text() + "# changed\n")
