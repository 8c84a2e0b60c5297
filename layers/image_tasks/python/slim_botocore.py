"""Leaves of botocore's data what the functions use: their services, without the documentation.

    python slim_botocore.py .../python/botocore

botocore describes four hundred services, in compressed JSON that is two thirds prose. Whoever makes a client pays for
it: finding the service, unpacking and parsing take 40 ms of a cold start, and 25 MB of the layer are never read.
"""

import gzip
import json
import shutil
import sys
from pathlib import Path
from typing import Any

# Those that `AwsClients` has, by their names in botocore's data, which endpoints.json calls otherwise in one case.
SERVICES = {"dynamodb", "events", "s3", "secretsmanager", "sqs", "stepfunctions"}
ENDPOINT_PREFIXES = SERVICES - {"stepfunctions"} | {"states"}

Json = dict[str, Any] | list[Any] | str | int | float | bool | None


def main(botocore: Path) -> None:
    """Slims the installed package in place."""
    data = botocore / "data"
    for folder in data.iterdir():
        if folder.is_dir() and folder.name not in SERVICES:
            shutil.rmtree(folder)
    for path in data.rglob("examples-1.json"):
        path.unlink()
    for path in data.rglob("*.json.gz"):
        # Plain: unpacking takes longer than reading what is left of it.
        write(path.with_suffix(""), without_documentation(json.loads(gzip.decompress(path.read_bytes()))))
        path.unlink()
    endpoints = json.loads((data / "endpoints.json").read_text())
    for partition in endpoints["partitions"]:
        partition["services"] = {name: at for name, at in partition["services"].items() if name in ENDPOINT_PREFIXES}
    write(data / "endpoints.json", endpoints)


def write(path: Path, content: Json) -> None:
    """As compact as JSON gets."""
    path.write_text(json.dumps(content, separators=(",", ":")))


def without_documentation(part: Json) -> Json:
    """Without what is said of operations, shapes and parameters; a shape's member of that name stays."""
    match part:
        case dict():
            return {
                name: without_documentation(value)
                for name, value in part.items()
                if not (name in ("documentation", "documentationUrl") and isinstance(value, str))
            }
        case list():
            return [without_documentation(value) for value in part]
    return part


if __name__ == "__main__":
    main(Path(sys.argv[1]))
