"""Provides the poller, with plain functions in place of the providers."""

from collections.abc import Iterator

import pytest

from tests.integration.conftest import Store
from tests.integration.providers import (
    Providers,
    polling,
)


@pytest.fixture
def providers(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Providers]:
    with polling(monkeypatch) as providers:
        yield providers
