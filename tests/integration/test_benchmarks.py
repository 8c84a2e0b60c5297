"""The benchmarks run: each of Catchlight's variants runs once, without measurement."""

import os

import botocore.auth
import pytest

from tests.benchmarks import archiving, polling


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
