"""Provides the archiver with its table, queues and an image server."""

from collections.abc import Iterator

import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from tests.image_server import ImageServer, picture, serving
from tests.integration.archiver import Archiver, archiving
from tests.integration.conftest import Store

PNG, JPEG = picture("PNG"), picture("JPEG")


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with serving() as running:
        yield running


@pytest.fixture
def archiver(
    store: Store, server: ImageServer, context: LambdaContext, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Archiver]:
    # Without an API key, callbacks cannot be confirmed. Confirmation is tested in tests/integration/confirmation.
    with archiving(store, server, context, monkeypatch, provider_keys={}) as running_archiver:
        yield running_archiver
