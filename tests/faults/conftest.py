"""Fixtures: a harness for explorations, and an empty table."""

from collections.abc import Iterator

import pytest

from local.template.expand import load_template
from tests.faults.stage import Stage, a_stage
from tests.integration.conftest import REPOSITORY, Store, a_store, an_account


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with a_stage() as stage:
        yield stage


@pytest.fixture
def store() -> Iterator[Store]:
    with an_account():
        yield a_store(load_template(REPOSITORY / "template.yaml", {}))
