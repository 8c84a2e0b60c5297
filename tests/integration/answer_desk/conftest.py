"""A desk in memory."""

from collections.abc import Iterator

import pytest

from functions.answer_requests import app
from tests.integration.answer_desk.desk import Clock, Desk
from tests.integration.conftest import Store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    yield Desk(store, clock, monkeypatch)
    app.dependencies.cache_clear()
