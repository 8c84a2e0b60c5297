"""Provides a harness for explorations and an empty tasks table."""

from collections.abc import Iterator

import pytest

from local.template.expand import load_template
from tests.integration.conftest import REPOSITORY, Store, a_store, an_account
from tests.searches.faults.harness import Harness, a_harness


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    with a_harness() as harness:
        yield harness


@pytest.fixture
def store() -> Iterator[Store]:
    with an_account():
        yield a_store(load_template(REPOSITORY / "template.yaml", {}))
