"""Defines environment variables and files of a user that a local stack must ignore: each of them would break it."""

import os
import sys
from pathlib import Path

from tests.programs import run_program

REPOSITORY = Path(__file__).parents[1]
DEAD = "http://127.0.0.1:9"  # the port of the discard service, where nothing listens
_MISSING = "/nonexistent"
_TOOLS = {
    **dict.fromkeys(("AWS_PROFILE", "AWS_DEFAULT_PROFILE"), "nobody"),
    **dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_DYNAMODB"), DEAD),
    "AWS_DEFAULT_REGION": "cn-north-1",
    "AWS_REGION": "nowhere",
    **dict.fromkeys(("AWS_RETRY_MODE", "AWS_DEFAULTS_MODE", "AWS_MAX_ATTEMPTS"), "bogus"),
    **dict.fromkeys(("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"), "bogus"),
    "AWS_USE_FIPS_ENDPOINT": "true",
    **dict.fromkeys(("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"), f"{_MISSING}.pem"),
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), DEAD),
    "MOTO_ACCOUNT_ID": "000000000000",
    "POWERTOOLS_LOG_LEVEL": "bogus",
    "POWERTOOLS_SERVICE_NAME": "another",
    "POWERTOOLS_METRICS_NAMESPACE": "another",
    "SAM_TEMPLATE_FILE": f"{_MISSING}.yaml",
}
_MACHINE = {
    "HOME": _MISSING,
    **dict.fromkeys(("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"), _MISSING),
    **dict.fromkeys(("LANG", "LC_ALL"), "C"),
    "TZ": "No/Where",
    "PYTHONPATH": _MISSING,
    "PYTHONWARNINGS": "error",
}


def tools_settings(folder: Path) -> dict[str, str]:
    """Returns settings of AWS's tools, of HTTP clients and of libraries."""
    broken = folder / "broken.config"
    broken.write_text("[profile\nbroken")
    return {**_TOOLS, "AWS_CONFIG_FILE": str(broken), "AWS_SHARED_CREDENTIALS_FILE": str(broken)}


def hostile_settings(folder: Path) -> dict[str, str]:
    """Returns all these settings, and those of an unusual machine."""
    return {**tools_settings(folder), **_MACHINE}


def run_module(module: str, *arguments: str, folder: Path) -> None:
    """Runs a module of the repository as a program, with the settings of AWS's tools and of libraries.

    Proxies and certificates stay as they are: installing packages may need them.

    Raises:
        AssertionError: it failed; with its output.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    hostile = {
        name: value for name, value in tools_settings(folder).items() if name.startswith(("AWS_", "MOTO_", "POW"))
    }
    run_program([sys.executable, "-m", module, *arguments], folder=REPOSITORY, environment={**environment, **hostile})
