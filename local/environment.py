"""Removes the user's AWS settings from environments, and excludes loopback addresses from proxies."""

import os
from collections.abc import Mapping, MutableMapping

# Prefixes of the user's settings for AWS tools, moto and Powertools. boto3, which moto uses while it is imported, fails
# on a profile that does not exist or a configuration file that cannot be read. An endpoint set by the user would
# receive requests meant for the local stack.
_PREFIXES = ("AWS_", "MOTO_", "POWERTOOLS_")
# `sam build` reads the path of its template from this variable.
_NAMES = ("SAM_TEMPLATE_FILE",)
_LOOPBACK = "127.0.0.1,localhost"


def without_user_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment without the user's AWS settings.

    Proxy settings stay, because pip may need them, but do not apply to loopback addresses.
    """
    kept = {name: value for name, value in environment.items() if not name.startswith(_PREFIXES) and name not in _NAMES}
    exceptions = {
        name: ",".join(filter(None, (kept.get(name), _LOOPBACK)))
        # Some programs read the upper-case name, some the lower-case one.
        for name in ("NO_PROXY", "no_proxy")
    }
    return {
        **kept,
        **exceptions,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        # Otherwise boto3 looks for an instance role of the machine.
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def ignore_user_settings(environment: MutableMapping[str, str] = os.environ) -> None:
    """Removes the user's AWS settings from this process and its child processes. Call it before moto is imported."""
    remaining = without_user_settings(environment)
    for name in set(environment) - set(remaining):
        del environment[name]
    environment.update(remaining)
