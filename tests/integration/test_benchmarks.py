"""The benchmarks run: each of Catchlight's variants runs once, without measurement."""

import os
import sys

import botocore.auth
import pytest

from tests.benchmarks import archiving, polling
from tests.integration.conftest import REPOSITORY
from tests.programs import run_program

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
PROGRAMS = {"all": ALL} | {name: f"import tests.benchmarks.{name}\n" for name in ("bill", "forgeries", "pages")}
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


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_expand_the_template_after_their_imports(name: str) -> None:
    """SAM's translator fails if botocore has found a package that was hidden afterwards because Lambda lacks it."""
    output = run_program([sys.executable, "-c", PROGRAMS[name] + EXPAND], folder=REPOSITORY)

    assert int(output.split()[-1]) > 50
