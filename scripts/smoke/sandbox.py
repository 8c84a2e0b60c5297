"""Runs one built function as Lambda does: reads events from standard input, writes answers to a file descriptor.

It is started with `python -I -S`, so that only the standard library and the built folders can be imported; this module
imports nothing from the project either. The function uses the host names of AWS; every connection that it opens is
redirected to the loopback server of scripts/smoke/account.py.
"""

import importlib
import json
import os
import socket
import ssl
import sys
import time
import traceback
from typing import Any

# Catchlight fetches images from public addresses only, which excludes documentation ranges such as TEST-NET-3.
PUBLIC_ADDRESS = "93.184.216.34"
# Factor by which clocks run slower, so that time limits do not fail on a busy machine. Other tests check the limits.
SLOWER = 30
MAX_PAUSE_SECONDS = 0.02


class Context:
    """Replaces Lambda's context object."""

    function_name = memory_limit_in_mb = invoked_function_arn = aws_request_id = "smoke"

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        """Returns Lambda's longest timeout, 15 minutes."""
        return 900_000


def main() -> None:
    """Loads the handler, then calls it with each event until standard input ends."""
    setup = json.loads(sys.stdin.readline())
    answers = os.fdopen(setup["answers"], "w", buffering=1)
    bundles: dict[str, int] = {}
    slow_down_clocks()
    redirect_to_loopback(setup["port"])
    trust(setup["authority"], bundles)
    sys.path[:0] = setup["path"]
    try:
        module, _, function = setup["handler"].rpartition(".")
        handler = getattr(importlib.import_module(module), function)
        answers.write(json.dumps({"loaded": module}) + "\n")
        for line in sys.stdin:
            answers.write(json.dumps({"response": handler(json.loads(line), Context())}) + "\n")
        answers.write(json.dumps({"bundles": bundles, "foreign": foreign_modules(setup["path"])}) + "\n")
    except BaseException:
        answers.write(json.dumps({"error": traceback.format_exc()}) + "\n")
        raise


def slow_down_clocks() -> None:
    """Extends all time limits and shortens pauses. The clock still advances by the full time of each pause."""
    monotonic, sleep, settimeout = time.monotonic, time.sleep, socket.socket.settimeout
    paused = 0.0

    def pause(seconds: float) -> None:
        nonlocal paused
        paused += seconds
        sleep(min(seconds, MAX_PAUSE_SECONDS))

    time.monotonic = lambda: monotonic() / SLOWER + paused
    time.sleep = pause  # type: ignore

    def settimeout_longer(self: socket.socket, seconds: float | None) -> None:
        settimeout(self, seconds and seconds * SLOWER)

    socket.socket.settimeout = settimeout_longer  # type: ignore


def redirect_to_loopback(port: int) -> None:
    """Resolves every name to a public address, and redirects every connection to the server on this machine."""
    connect = socket.socket.connect

    def getaddrinfo(_: Any, port: Any, *__: Any, **___: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC_ADDRESS, int(port)))]

    def connect_here(self: socket.socket, _: Any) -> None:
        connect(self, ("127.0.0.1", port))

    socket.getaddrinfo = getaddrinfo  # type: ignore
    socket.socket.connect = connect_here  # type: ignore


def trust(authority: str, bundles: dict[str, int]) -> None:
    """Makes every TLS context trust the loopback server, in addition to the CA bundle that the function loads.

    Records each loaded bundle in `bundles`, with the number of its certificates.
    """
    load = ssl.SSLContext.load_verify_locations

    def load_both(self: ssl.SSLContext, cafile: Any = None, capath: Any = None, cadata: Any = None) -> None:
        load(self, cafile, capath, cadata)
        bundles[str(cafile)] = self.cert_store_stats()["x509_ca"]
        load(self, authority)

    ssl.SSLContext.load_verify_locations = load_both  # type: ignore[method-assign]


def foreign_modules(path: list[str]) -> list[str]:
    """Returns the files of imported modules that belong neither to the artefact nor to the standard library."""
    files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    known = (*path, os.path.realpath(sys.base_prefix), sys.base_prefix, os.path.realpath(__file__), __file__)
    return sorted(file for file in files if file and not file.startswith(known))


if __name__ == "__main__":
    main()
