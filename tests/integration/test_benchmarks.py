"""The benchmarks run: each of Catchlight's variants runs once, without measurement."""

import os
import subprocess
import sys

import botocore.auth
import pytest

from tests.benchmarks import archiving, polling
from tests.integration.conftest import REPOSITORY
from tests.waiting import TIMEOUT_SECONDS

# Starts the program with --help, imports all benchmarks as it does, and expands the template.
ALL = """
import importlib, runpy, sys
sys.argv = ["tests.benchmarks", "--help"]
try:
    runpy.run_module("tests.benchmarks", run_name="__main__")
except SystemExit:
    from tests.benchmarks.__main__ import BENCHMARKS
for name in BENCHMARKS:
    importlib.import_module(f"tests.benchmarks.{name}")
"""
ONE = "import tests.benchmarks.{}\n"
EXPAND = "from tests.project_template import project_template\nprint(len(project_template().resources))"


@pytest.mark.parametrize("way", ["poll_requests", "poll_requests_in_batches", "poll_and_record"])
def test_polling(way: str) -> None:
    with polling.a_provider() as url:
        assert polling.run_in_new_process(way, url).seconds > 0


def test_archiving(monkeypatch: pytest.MonkeyPatch) -> None:
    # Outside of tests, the benchmark runs in a separate process, and changes these two objects.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setitem(botocore.auth.AUTH_TYPE_MAPS, "s3v4", botocore.auth.AUTH_TYPE_MAPS["s3v4"])

    with archiving.servers(0) as ways:
        ways.ours(1)
        ways.batch(1, threads=2, messages=2)
        ways.bare_batch(1)


@pytest.mark.parametrize(
    "program", [ALL, *map(ONE.format, ("bill", "forgeries", "pages"))], ids=["all", "bill", "forgeries", "pages"]
)
def test_programs_expand_the_template_after_their_imports(program: str) -> None:
    """SAM's translator fails if botocore has found a package that was hidden afterwards because Lambda lacks it."""
    process = subprocess.run(
        [sys.executable, "-c", program + EXPAND],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )

    assert process.returncode == 0, process.stderr
    assert int(process.stdout.split()[-1]) > 50
