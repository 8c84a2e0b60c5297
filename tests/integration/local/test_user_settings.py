"""Settings of the user's AWS tools do not affect sessions, clients and processes of the local stack."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from catchlight.client.http_client import http_client
from catchlight.client.loopback_session import NO_PROXIES, loopback_session
from local.environment import ignore_user_settings, without_user_settings
from local.moto.server import MotoServer
from tests.user_settings import hostile_settings, tools_settings


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    moto = MotoServer()
    moto.start()
    moto.client("s3").create_bucket(Bucket="images")
    yield moto
    moto.stop()


@pytest.mark.parametrize("name", [*sorted(tools_settings(Path("/tmp"))), "all at once"])
def test_clients_of_the_local_stack_ignore_user_settings(
    server: MotoServer, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in tools_settings(tmp_path).items():
        if name in (variable, "all at once"):
            monkeypatch.setenv(variable, value)

    s3: Any = loopback_session("us-east-1").client("s3", endpoint_url=server.url, config=NO_PROXIES)
    s3.put_object(Bucket="images", Key="key", Body=b"bytes")
    assert s3.get_object(Bucket="images", Key="key")["Body"].read() == b"bytes"
    assert (s3.meta.endpoint_url, s3.meta.region_name) == (server.url, "us-east-1")
    s3.close()
    with http_client(httpx.Client, trust_environment=False) as client:
        assert client.get(server.url).status_code == httpx.codes.OK


def test_child_processes_do_not_inherit_settings_of_aws_tools(tmp_path: Path) -> None:
    hostile = hostile_settings(tmp_path)
    proxies = {name: value for name, value in hostile.items() if name.lower().endswith("_proxy")}

    environment = without_user_settings({**hostile, "no_proxy": "example.com", "PATH": "/bin"})

    assert environment == {
        # A build needs access to the package index, and its certificates.
        **proxies,
        **{name: hostile[name] for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")},
        **{name: value for name, value in hostile.items() if name.startswith(("HOME", "XDG_", "L", "TZ", "PYTHON"))},
        "PATH": "/bin",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "example.com,127.0.0.1,localhost",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    ignore_user_settings(hostile)
    assert hostile == without_user_settings(hostile_settings(tmp_path))
