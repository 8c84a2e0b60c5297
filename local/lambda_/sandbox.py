"""Turns a function's process into a Lambda sandbox, then starts AWS's own runtime client.

    python -m local.lambda_.sandbox                         packages of this environment, for functions of the sources
    python -I -S local/lambda_/sandbox.py LAYER... RUNTIME  these folders only, for functions of the artefact

Imports no other module of the local stack at start, so that a handler finds the same modules as in Lambda. Only
`install_local_url_policy`, `install_runtime_client`, `send_under_path` and, in tests, `shift_clock` change modules.
"""

import importlib
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

IMAGE_HOSTS_VARIABLE = "CATCHLIGHT_LOCAL_IMAGE_HOSTS"
CLOCK_VARIABLE = "CATCHLIGHT_LOCAL_CLOCK_SECONDS"
# Packages of this environment that neither Lambda nor the layer has. botocore and urllib3 import them if they are
# installed, which takes a quarter of a function's start.
NOT_IN_LAMBDA = ("awscrt", "OpenSSL")


def hide_packages_of_sam() -> None:
    """Makes imports of the packages in NOT_IN_LAMBDA fail, as in Lambda. Call it before botocore is imported.

    A package that is already imported stays: botocore would fail if it found it first and then not any more.
    """
    for name in NOT_IN_LAMBDA:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None: its import raises ModuleNotFoundError


def end_with_parent(lifeline: int) -> None:
    """Ends this process when the other end of the pipe closes, which happens even if the parent is killed with SIGKILL.

    PR_SET_PDEATHSIG is no alternative: macOS does not have it, and on Linux the signal is sent when the *thread* that
    started this process ends.
    """

    def wait() -> None:
        while os.read(lifeline, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def install_local_url_policy(image_hosts: Mapping[tuple[str, int], bool]) -> None:
    """Replaces the URL policy's class by a subclass that also allows http URLs of these hosts and ports.

    A listed host (True) is always allowed. An unlisted host (False) is allowed only if the URL policy would allow its
    name in an https URL; it is then resolved to 127.0.0.1.

    Must be called before the handler's modules import the URL policy, which has no option for this.
    """
    from urllib.parse import urlsplit

    from catchlight.images import url_policy

    class LocalUrlPolicy(url_policy.UrlPolicy):
        def check_url(self, url: str, allowed_hosts: Iterable[str]) -> str:
            try:
                parts = urlsplit(url)
                host, port = parts.hostname or "", parts.port or 80
            except ValueError:  # malformed
                return super().check_url(url, allowed_hosts)
            authority = f"http://{parts.netloc}"
            is_local = url.startswith(authority) and "@" not in authority and (host, port) in image_hosts
            if not is_local:
                return super().check_url(url, allowed_hosts)
            # Everything except scheme, port and a listed host is checked as in any other URL.
            is_listed = image_hosts[host, port]
            name = "listed.example" if is_listed else host
            super().check_url(f"https://{name}{url.removeprefix(authority)}", ["*"] if is_listed else allowed_hosts)
            return host

        def resolve(self, host: str, port: int) -> list[str]:
            is_listed = image_hosts.get((host, port))
            if is_listed is None:
                return super().resolve(host, port)
            return [host if is_listed else "127.0.0.1"]

    url_policy.UrlPolicy = LocalUrlPolicy  # type: ignore[misc]


def parse_image_hosts(text: str) -> dict[tuple[str, int], bool]:
    """Parses `HOST:PORT,HOST:PORT=unlisted`: maps each host and port to whether the host is listed."""
    image_hosts = {}
    for item in filter(None, text.split(",")):
        address, _, mark = item.partition("=")
        host, port = address.rsplit(":", 1)
        image_hosts[host, int(port)] = mark != "unlisted"
    return image_hosts


def shift_clock(seconds: float) -> None:
    """Advances the handler's clock by these seconds. Must be called before the handler's modules are imported."""
    from catchlight import models

    utc_now = models.utc_now
    models.utc_now = lambda: utc_now() + timedelta(seconds=seconds)


def install_runtime_client() -> None:
    """Replaces awslambdaric's native module `runtime_client` where it is missing: it is compiled on Linux only."""
    try:
        importlib.import_module("runtime_client")
    except ImportError:
        from local.lambda_ import python_runtime_client

        sys.modules["runtime_client"] = python_runtime_client


def send_under_path() -> None:
    """Makes awslambdaric's Python code accept a path in AWS_LAMBDA_RUNTIME_API, as its native code does.

    The path has the secret that protects the Runtime API from other processes. awslambdaric uses the Python code only
    to report errors of the initialization.
    """
    from awslambdaric.lambda_runtime_client import BaseLambdaRuntimeClient

    send = BaseLambdaRuntimeClient.call_rapid

    def call_rapid(self: Any, http_method: str, endpoint: str, *arguments: Any, **options: Any) -> None:
        address, slash, path = self.lambda_runtime_address.partition("/")
        host = SimpleNamespace(lambda_runtime_address=address)
        send(host, http_method, f"{slash}{path}{endpoint}", *arguments, **options)

    BaseLambdaRuntimeClient.call_rapid = call_rapid


def main() -> None:
    # The parent has the other end of stdin. A handler must find an empty stdin, as in Lambda.
    lifeline = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    end_with_parent(lifeline)

    task_root = os.environ["LAMBDA_TASK_ROOT"]
    os.chdir(task_root)
    if folders := sys.argv[1:]:
        # In the same order as in Lambda. Because of -I -S, the interpreter's own path has the standard library only.
        sys.path[:0] = [task_root, *folders]
    else:
        install_runtime_client()
        hide_packages_of_sam()
        # `python -m` adds the repository at the start, and the editable installation of the command line adds it again.
        # In Lambda, the function's folder is first, and there is no repository.
        repository = sys.path[0]
        sys.path[:] = [task_root, *(path for path in sys.path[1:] if path != repository)]
    if hosts := os.environ.pop(IMAGE_HOSTS_VARIABLE, ""):
        install_local_url_policy(parse_image_hosts(hosts))
    if seconds := os.environ.pop(CLOCK_VARIABLE, ""):
        shift_clock(float(seconds))

    from awslambdaric.__main__ import main as run_handler

    send_under_path()
    run_handler([sys.argv[0], os.environ["_HANDLER"]])


if __name__ == "__main__":
    main()
