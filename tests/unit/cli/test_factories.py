"""Objects that commands create for a stack."""

from types import SimpleNamespace
from typing import Any

import pytest

from catchlight.client.errors import CatchlightError
from catchlight_cli.factories import provider_client


@pytest.mark.parametrize("value", ["flux-kontext=https://:8443", "flux-kontext=https://[::1", "flux-kontext"])
def test_base_urls_that_the_template_accepts_but_that_are_invalid_are_an_error_of_the_stack(value: str) -> None:
    stack: Any = SimpleNamespace(parameters={"ProviderBaseUrls": value})

    with pytest.raises(CatchlightError, match="ProviderBaseUrls"), provider_client(stack):
        pass
