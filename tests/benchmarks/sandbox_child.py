"""Measures a function from its import to its first response, in a new interpreter with Lambda's runtime client.

    python -I -S -B sandbox_child.py '{"paths": [...], "runtime": "...", "port": 443, "event": {...}}'

Writes the measurements to standard error, as a line of JSON. Then, for each number on standard input, handles the event
that many times and writes the seconds of CPU time.
"""

import json
import os
import socket
import sys
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

ARGUMENTS: dict[str, Any] = json.loads(sys.argv[1])


class Context:
    """The Lambda context of the invocation."""

    function_name = "measured"
    function_version = "$LATEST"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:measured"
    aws_request_id = "00000000-0000-4000-8000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        """Returns the longest timeout of the measured functions."""
        return 60_000


def main() -> None:
    """Runs the measurements."""
    # AWS's real host names resolve to the local simulation, so that endpoints are determined as in Lambda.
    address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", ARGUMENTS["port"]))
    socket.getaddrinfo = lambda *_, **__: [address]
    # In Lambda, the runtime client is loaded before the function's code, and output is written immediately.
    sys.path.append(ARGUMENTS["runtime"])
    import awslambdaric.bootstrap  # noqa: F401

    sys.stdout = Path(os.devnull).open("w", buffering=1)  # noqa: SIM115
    sys.path[:0] = ARGUMENTS["paths"]
    event, known = ARGUMENTS["event"], set(sys.modules)

    started_at, used = perf_counter(), process_time()
    import app  # type: ignore[import-not-found]

    imported = perf_counter()
    answer = app.handler(event, Context())
    answered, used_in_all = perf_counter(), process_time()
    write_json(
        {
            "import": (imported - started_at) * 1000,
            "first_answer": (answered - imported) * 1000,
            "all": (answered - started_at) * 1000,
            "cpu": (used_in_all - used) * 1000,
            "answer": answer,
            "modules": sorted(set(sys.modules) - known),
        }
    )
    for line in sys.stdin:
        used = process_time()
        for _ in range(int(line)):
            app.handler(event, Context())
        write_json({"cpu": process_time() - used})


def write_json(document: dict[str, Any]) -> None:
    """Writes one line of JSON."""
    sys.stderr.write(f"{json.dumps(document)}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
