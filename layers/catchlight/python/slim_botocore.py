"""Removes the data from botocore that the functions do not use: other services, and the documentation of used ones.

    python slim_botocore.py .../python/botocore

botocore describes four hundred services in compressed JSON, two thirds of which are documentation. Each new client
loads the model of its service: searching, decompressing and parsing it take 40 ms of a cold start, and 25 MB of the
layer are never read.
"""

import gzip
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The services of `AwsClients`, as the folders in botocore's data are called. endpoints.json has other names for two.
SERVICES = {"dynamodb", "dynamodbstreams", "events", "lambda", "s3", "secretsmanager", "sqs", "stepfunctions"}
ENDPOINT_PREFIXES = SERVICES - {"dynamodbstreams", "stepfunctions"} | {"streams.dynamodb", "states"}
SERVICE_MODEL = "service-2.json"


def main(botocore: Path) -> None:
    """Slims the installed package in place."""
    data = botocore / "data"
    if missing := SERVICES - {folder.name for folder in data.iterdir()}:
        sys.exit(f"{data} has no service {', '.join(sorted(missing))}: correct SERVICES in {Path(__file__).name}.")
    for folder in data.iterdir():
        if folder.is_dir() and folder.name not in SERVICES:
            shutil.rmtree(folder)
    for path in data.rglob("examples-1.json"):
        path.unlink()
    for path in data.rglob("*.json.gz"):
        content = json.loads(gzip.decompress(path.read_bytes()))
        if path.name == f"{SERVICE_MODEL}.gz":
            remove_documentation(content)
        # Uncompressed: decompressing takes longer than reading the remaining data.
        write(path.with_suffix(""), content)
        path.unlink()
    endpoints = json.loads((data / "endpoints.json").read_text())
    for partition in endpoints["partitions"]:
        partition["services"] = {name: at for name, at in partition["services"].items() if name in ENDPOINT_PREFIXES}
    write(data / "endpoints.json", endpoints)


def write(path: Path, content: Any) -> None:
    """Writes JSON without whitespace."""
    path.write_text(json.dumps(content, separators=(",", ":")))


def remove_documentation(model: dict[str, Any]) -> None:
    """Removes the documentation of the service, its operations, shapes and members from a service model.

    `documentation` fields at other places stay: botocore makes no S3 request without that of `clientContextParams`, and
    a member of a shape may be called "documentation".
    """
    for documented in _documented(model):
        documented.pop("documentation", None)


def _documented(model: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield model
    yield from model["operations"].values()
    for shape in model["shapes"].values():
        yield shape
        yield from shape.get("members", {}).values()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
