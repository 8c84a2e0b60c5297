"""The environment of processes for this machine only: none of the user's AWS settings, no proxy for loopback."""

import os
from collections.abc import Mapping, MutableMapping

# Settings of AWS's tools, of moto and of Powertools for other programs than these. A profile that does not exist or a
# configuration file that cannot be read ends boto3, which moto uses while it is imported; an endpoint of the user's
# would receive what belongs to the local stack.
_PREFIXES = ("AWS_", "MOTO_", "POWERTOOLS_")
# `sam build` takes its template from it.
_NAMES = ("SAM_TEMPLATE_FILE",)
_LOOPBACK = "127.0.0.1,localhost"


def without_user_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the user's AWS settings. Proxies stay, except for loopback: pip may need them."""
    kept = {name: value for name, value in environment.items() if not name.startswith(_PREFIXES) and name not in _NAMES}
    exceptions = {
        name: ",".join(filter(None, (kept.get(name), _LOOPBACK)))
        # Programs look at one or the other.
        for name in ("NO_PROXY", "no_proxy")
    }
    return {
        **kept,
        **exceptions,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        # Else boto3 looks for a role of the machine.
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def ignore_user_settings(environment: MutableMapping[str, str] = os.environ) -> None:
    """Removes the user's AWS settings from this process and from what it starts. Before moto is imported."""
    remaining = without_user_settings(environment)
    for name in set(environment) - set(remaining):
        del environment[name]
    environment.update(remaining)
