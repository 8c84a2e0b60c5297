"""Runs web servers that receive callbacks, each in a process that reports its CPU time."""

import http.client
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PEERS = Path(__file__).with_name("peers")
EXPRESS = "express@5.1.0"
CALLBACK = json.dumps({"code": 501, "msg": "Image generation failed", "data": {"taskId": "task12345"}}).encode()


class WebPeer:
    """A running receiver."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def cpu_seconds(self, callbacks: int) -> float:
        """Returns the CPU time per callback, over this number of callbacks, including the server's HTTP work."""
        before = self._cpu()
        for _ in range(callbacks):
            headers = {"Content-Type": "application/json"}
            self._connection.request("POST", "/flux-image-callback", CALLBACK, headers)
            response = self._connection.getresponse()
            response.read()
            assert response.status == 200, response.status
        after = self._cpu()
        # The pause between two blocks can exceed the servers' keep-alive time.
        self._connection.close()
        return (after - before) / callbacks

    def _cpu(self) -> float:
        self._connection.request("GET", "/cpu")
        return float(self._connection.getresponse().read())


@contextmanager
def flask(*arguments: str) -> Iterator[WebPeer]:
    """Runs the Flask receiver; with a path as argument it stores callbacks in SQLite."""
    with _running([sys.executable, str(PEERS / "flask_receiver.py"), *arguments]) as peer:
        yield peer


@contextmanager
def express(folder: Path) -> Iterator[WebPeer | None]:
    """Runs the Express receiver, installed into the folder; yields None if it cannot be installed."""
    if not (shutil.which("node") and shutil.which("npm")):
        yield None
        return
    shutil.copy(PEERS / "express" / "receiver.js", folder)
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", EXPRESS]
    if subprocess.run(install, cwd=folder, capture_output=True, check=False).returncode:
        yield None
        return
    with _running(["node", str(folder / "receiver.js")]) as peer:
        yield peer


@contextmanager
def _running(command: Sequence[str]) -> Iterator[WebPeer]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            port = process.stderr.readline()
            # The server logs every request to this pipe: unless it is read, the server blocks when the pipe is full.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield WebPeer(int(port))
        finally:
            process.terminate()
