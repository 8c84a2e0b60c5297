"""The providers by id. A new one is a module here and a line below."""

from image_tasks.errors import UnknownProviderError
from image_tasks.providers import acedata, flux_kontext, nanobanana
from image_tasks.providers.base import PollRequest, Provider

PROVIDERS: dict[str, Provider] = {
    provider.id: provider for provider in (flux_kontext.PROVIDER, nanobanana.PROVIDER, acedata.PROVIDER)
}

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
