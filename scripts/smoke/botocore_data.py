"""Compares botocore's data in a layer, which the build slims, with the data of the installed botocore.

The check lists what may be missing, independently of the build's rules: it detects a rule that removes more.
"""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import botocore

DATA = Path("botocore/data")
INSTALLED = Path(botocore.__file__).parents[1]
# The only values that a slimmed service model may lack: botocore uses them for help texts only.
_MAY_BE_MISSING = re.compile(r"(operations/[^/]+/|shapes/[^/]+/(members/[^/]+/)?)?documentation")


def check_data(layer: Path, recorded: Mapping[Path, str | None], clients: Path) -> Iterator[str]:
    """Yields problems of the layer's botocore data: unused, missing or changed files.

    `recorded` are the wheel's files with their digests; `clients` is the module that creates the boto3 clients.
    """
    services = set(re.findall(r'_client\("(\w+)"', clients.read_text()))
    expected = {}
    for path, digest in recorded.items():
        is_of_a_service = len(path.parts) > len(DATA.parts) + 1
        service = path.parts[len(DATA.parts)]
        if (is_of_a_service and service not in services) or path.name.startswith("examples"):
            continue
        expected[path.with_suffix("") if path.suffix == ".gz" else path] = (path, digest)
    found = {path.relative_to(layer) for path in (layer / DATA).rglob("*") if not path.is_dir()}
    for path in sorted(found - expected.keys()):
        yield f"{path}: is not used by any function"
    for path in sorted(expected.keys() - found):
        yield f"{path}: is missing"
    for path in sorted(found & expected.keys()):
        yield from _check_file(layer, path, *expected[path], services)


def _check_file(layer: Path, path: Path, source: Path, digest: str | None, services: set[str]) -> Iterator[str]:
    original = (INSTALLED / source).read_bytes()
    if record_digest(original) != digest:
        yield f"{source}: this environment has another botocore than the layer. Run `make setup`, then build again."
        return
    content = (layer / path).read_bytes()
    if source.suffix != ".gz" and path != DATA / "endpoints.json":
        if content != original:
            yield f"{path}: differs from botocore's file"
        return
    try:
        slimmed = json.loads(content)
    except ValueError:
        yield f"{path}: is not JSON"
        return
    whole = json.loads(gzip.decompress(original) if source.suffix == ".gz" else original)
    if path.name == "service-2.json":
        differences = [place for place in _differences(whole, slimmed) if not _MAY_BE_MISSING.fullmatch(place)]
    elif path == DATA / "endpoints.json":
        differences = [*_differences(_endpoints_of(whole, _prefixes(layer, services)), slimmed)]
    else:
        differences = [*_differences(whole, slimmed)]
    if differences:
        yield f"{path}: lacks or changes {', '.join(differences[:3])} ({len(differences)} places)"


def record_digest(content: bytes) -> str:
    """Returns the SHA-256 of a file in the encoding of a wheel's RECORD: base64url without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def _prefixes(layer: Path, services: set[str]) -> set[str]:
    """Returns the names of these services in endpoints.json."""
    models = (path for service in services for path in (layer / DATA / service).glob("*/service-2.json"))
    return {re.findall(r'"endpointPrefix":"([^"]+)"', path.read_text())[0] for path in models}


def _endpoints_of(endpoints: dict[str, Any], prefixes: set[str]) -> dict[str, Any]:
    for partition in endpoints["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in services if name in prefixes}
    return endpoints


def _differences(whole: Any, slimmed: Any, place: str = "") -> Iterator[str]:
    """Yields the paths of differing values, such as `operations/PutObject/httpChecksum`."""
    if isinstance(whole, dict) and isinstance(slimmed, dict):
        for name in whole.keys() | slimmed.keys():
            inner = f"{place}/{name}" if place else name
            if name in whole and name in slimmed:
                yield from _differences(whole[name], slimmed[name], inner)
            else:
                yield inner
    elif whole != slimmed:
        yield place
