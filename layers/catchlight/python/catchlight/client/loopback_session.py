"""Creates boto3 sessions for a local stack's AWS endpoint, independent of the user's AWS settings."""

import os
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES

# Loopback needs no proxy, even if the environment configures one.
NO_PROXIES = Config(proxies={})


def loopback_session(region: str) -> boto3.Session:
    """Returns a session with dummy credentials that reads neither AWS environment variables nor AWS files.

    With the user's settings, a missing profile, an invalid configuration file or an unknown retry mode would make every
    client fail, and requests could go to an endpoint on another machine. Clients must be created with `endpoint_url`
    and NO_PROXIES.
    """
    variables: dict[str, Any] = {
        # The two Nones replace the names in the configuration file and in the environment: botocore uses the default.
        name: (None, None, default, conversion)
        for name, (_, _, default, conversion) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
    variables["config_file"] = (None, None, os.devnull, None)
    variables["credentials_file"] = (None, None, os.devnull, None)
    variables["ignore_configured_endpoint_urls"] = (None, None, True, None)
    return boto3.Session(
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106  # nosec B106 - a dummy
        region_name=region,
        botocore_session=botocore.session.Session(session_vars=variables),
    )
