"""Additional accounts at a provider's service: each is a separate provider with the same module."""

import pytest

from catchlight.aws.secrets import Redactor
from catchlight.errors import UnknownProviderError
from catchlight.providers import PROVIDERS, find_provider, is_account
from tests.canary_secrets import CALLBACK_TOKEN
from tests.unit.providers.cases import RECEIVED_AT


@pytest.mark.parametrize("provider_id", PROVIDERS)
@pytest.mark.parametrize("suffix", ["2", "studio", "x" * 16])
def test_an_account_differs_from_its_provider_by_its_id(provider_id: str, suffix: str) -> None:
    first, account = PROVIDERS[provider_id], find_provider(f"{provider_id}-{suffix}")

    assert (account.id, type(account)) == (f"{provider_id}-{suffix}", type(first))
    assert (account.base_url, account.image_hosts) == (first.base_url, first.image_hosts)
    assert first.id == provider_id


@pytest.mark.parametrize(
    "provider_id",
    ["apikley-", "apikley-A", "apikley-2-3", "apikley-" + "x" * 17, "apikley-ä", "kie-2", "-2", "apikley-2\n", "kie"],
)
def test_no_other_id_is_an_account(provider_id: str) -> None:
    assert not is_account(provider_id)
    assert provider_id not in PROVIDERS
    with pytest.raises(UnknownProviderError, match=f"; known: {', '.join(PROVIDERS)}$"):
        find_provider(provider_id)


def test_a_provider_is_no_account_and_no_account_is_listed() -> None:
    assert not any(map(is_account, PROVIDERS))


def test_tasks_of_two_accounts_are_separate() -> None:
    body = {"code": 501, "msg": "failed", "data": {"taskId": "task12345"}}
    tasks = {PROVIDERS[name].parse_callback(body, received_at=RECEIVED_AT).task for name in ("apikley", "apikley-2")}

    assert tasks == {"apikley#task12345", "apikley-2#task12345"}


def test_the_token_in_an_accounts_callback_url_is_overwritten() -> None:
    redacted = Redactor().redact(f"https://a.example/callbacks/kie-market-2/{CALLBACK_TOKEN}".encode())

    assert redacted == b"https://a.example/callbacks/kie-market-2/[redacted]"
