"""The providers by id. A new one is a module here and a line below."""

from collections.abc import Iterator, Mapping
from importlib import import_module

from catchlight.errors import UnknownProviderError
from catchlight.providers.protocol import PollRequest, Provider

_MODULES = {
    "flux-kontext": "catchlight.providers.flux_kontext",
    "nanobanana": "catchlight.providers.nanobanana",
    "acedata": "catchlight.providers.acedata",
}


class _Providers(Mapping[str, Provider]):
    """Loads a provider's module when it is asked for: a callback's cold start has to wait for one of them only."""

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
    """The provider of that id.

    Raises:
        UnknownProviderError: there is none.
    """
    try:
        return PROVIDERS[provider_id]
    except KeyError:
        raise UnknownProviderError(f"no such provider; known: {', '.join(PROVIDERS)}") from None
