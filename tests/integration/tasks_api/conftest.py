"""Provides a tasks API in memory."""

from collections.abc import Iterator

import pytest

from functions.serve_tasks_api import app
from tests.integration.conftest import Store
from tests.integration.tasks_api.api_harness import Clock, TasksApiHarness


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[TasksApiHarness]:
    yield TasksApiHarness(store, clock, monkeypatch)
    app.dependencies.cache_clear()
