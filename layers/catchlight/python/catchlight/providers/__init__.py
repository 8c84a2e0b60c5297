"""Finds providers by id. To add a provider, add its module to this package and a line to `_MODULES`.

A further account at the same service is a provider of its own that uses the same module. Its id is the provider's id, a
dash, and up to 16 lower-case letters and digits: `apikley-2` or `kie-market-studio`. It has its own callback URL, keys,
base URL, tasks and images. It exists as soon as the provider keys secret has an entry for it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module

from catchlight.errors import UnknownProviderError
from catchlight.providers.base import PollRequest, Provider

_MODULES = {
    "flux-kontext": "catchlight.providers.flux_kontext",
    "apikley": "catchlight.providers.apikley",
    "nanobanana": "catchlight.providers.nanobanana",
    "kie-market": "catchlight.providers.kie_market",
    "acedata": "catchlight.providers.acedata",
}


# The id of a provider, or of a further account at its service.
PROVIDER_ID_PATTERN = f"^(?:{'|'.join(_MODULES)})(?:-[a-z0-9]{{1,16}})?$"


class _Providers(Mapping[str, Provider]):
    """Imports a provider's module on first access, so that a callback's cold start imports only one of them.

    The id of any further account is a key, too. Iteration yields only the ids in `_MODULES`.
    """

    def __getitem__(self, provider_id: str) -> Provider:
        if provider_id in _MODULES:
            provider: Provider = import_module(_MODULES[provider_id]).PROVIDER
            return provider
        if not is_account(provider_id):
            raise KeyError(provider_id)
        return replace(self[provider_id.rpartition("-")[0]], id=provider_id)

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


PROVIDERS: Mapping[str, Provider] = _Providers()

__all__ = ["PROVIDERS", "PROVIDER_ID_PATTERN", "PollRequest", "Provider", "find_provider", "is_account"]


def is_account(provider_id: str) -> bool:
    """Decides whether an id is that of a further account at a provider's service, such as `apikley-2`."""
    return provider_id not in _MODULES and re.fullmatch(PROVIDER_ID_PATTERN, provider_id) is not None


def find_provider(provider_id: str) -> Provider:
    """Returns the provider with this id.

    Raises:
        UnknownProviderError: no provider has this id.
    """
    try:
        return PROVIDERS[provider_id]
    except KeyError:
        raise UnknownProviderError(f"no such provider; known: {', '.join(PROVIDERS)}") from None
