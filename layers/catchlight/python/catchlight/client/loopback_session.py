"""A boto3 session for the AWS endpoint of a local stack, which nothing in the user's AWS settings can change."""

import os
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES

# Loopback needs no proxy, whatever the environment says.
NO_PROXIES = Config(proxies={})


def loopback_session(region: str) -> boto3.Session:
    """A session with dummy credentials that reads neither AWS variables of the environment nor AWS files.

    A profile that does not exist, a broken configuration file or a retry mode that botocore does not know would fail
    each client; an endpoint of the user's might lead out of this machine. Clients need `endpoint_url` and NO_PROXIES.
    """
    variables: dict[str, Any] = {
        # Without a name in the file and in the environment only the default is left.
        name: (None, None, default, conversion)
        for name, (_, _, default, conversion) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
    variables["config_file"] = (None, None, os.devnull, None)
    variables["credentials_file"] = (None, None, os.devnull, None)
    variables["ignore_configured_endpoint_urls"] = (None, None, True, None)
    return boto3.Session(
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - a dummy
        region_name=region,
        botocore_session=botocore.session.Session(session_vars=variables),
    )
