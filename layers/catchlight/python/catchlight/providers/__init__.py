"""Finds providers by id. To add a provider, add its module to this package and a line to `_MODULES`."""

from collections.abc import Iterator, Mapping
from importlib import import_module

from catchlight.errors import UnknownProviderError
from catchlight.providers.protocol import PollRequest, Provider

_MODULES = {
    "flux-kontext": "catchlight.providers.flux_kontext",
    "apikley": "catchlight.providers.apikley",
    "nanobanana": "catchlight.providers.nanobanana",
    "kie-market": "catchlight.providers.kie_market",
    "acedata": "catchlight.providers.acedata",
}


class _Providers(Mapping[str, Provider]):
    """Imports a provider's module on first access, so that a callback's cold start imports only one of them."""

    def __getitem__(self, provider_id: str) -> Provider:
        provider: Provider = import_module(_MODULES[provider_id]).PROVIDER
        return provider

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


PROVIDERS: Mapping[str, Provider] = _Providers()

__all__ = ["PROVIDERS", "PollRequest", "Provider", "find_provider"]


def find_provider(provider_id: str) -> Provider:
    """Returns the provider with this id.

    Raises:
        UnknownProviderError: no provider has this id.
    """
    try:
        return PROVIDERS[provider_id]
    except KeyError:
        raise UnknownProviderError(f"no such provider; known: {', '.join(PROVIDERS)}") from None
