"""The provider `apikley`: Flux Kontext API of Apikley, apikley.ru, a reseller of kie.ai with its own keys and files."""

from dataclasses import replace

from catchlight.providers import flux_kontext

PROVIDER = replace(
    flux_kontext.PROVIDER,
    id="apikley",
    base_url="https://api.apikley.ru",
    image_hosts=("*.apikley.ru", *flux_kontext.PROVIDER.image_hosts),
    download_url_lifetime=None,  # not documented
)
