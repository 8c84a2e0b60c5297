"""Fuzzes all code that parses untrusted input: for any bytes, only documented errors may be raised.

    python -m scripts.fuzz [--seconds 60] [TARGET ...]

Each input is a seed with random changes. The seeds are the events under events/, the URLs of tests/hostile and images
of each format. An input that fails is stored in .fuzz/; `python -m scripts.fuzz TARGET --input FILE` runs it again.
"""

import argparse
import base64
import json
import os
import random
import sys
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path

import httpx

from catchlight.aws.secrets import verify_token
from catchlight.errors import ImageError, ImageRejectedError, ProviderError, RequestError, UnauthorizedError
from catchlight.images.formats import MAX_PIXELS, read_image_metadata
from catchlight.images.url_policy import HTTPS_PORT, UrlPolicy
from catchlight.providers import PROVIDERS
from catchlight.providers.base import Provider
from catchlight.providers.kie import verify_signature
from catchlight.providers.payloads import decode_json
from local import REPOSITORY

FINDINGS = REPOSITORY / ".fuzz"
MAX_INPUT_BYTES = 65536

NOW = datetime.fromtimestamp(1_700_000_000, UTC)
TOKEN = "localCallbackToken0123456789abcdefghijklmnopqrst"  # noqa: S105 - the one in events/
KEYS = ["k3y", ""]
PROVIDER_IDS = sorted(PROVIDERS)
url_policy = UrlPolicy()

# ------------------------------------------------------------------------------------------------ targets


def token(data: bytes) -> None:
    """Fuzzes the check of a callback URL's token."""
    presented = data.decode(errors="surrogateescape")
    try:
        verify_token(presented, [TOKEN])
    except UnauthorizedError:
        return
    assert presented == TOKEN


def signature(data: bytes) -> None:
    """Fuzzes the check of kie.ai's signature. The input has three lines: task id, time and signature."""
    task_id, *rest = data.decode("latin-1").split("\n", 2)
    names = ("x-webhook-timestamp", "x-webhook-signature")
    try:
        verify_signature(dict(zip(names, rest, strict=False)), task_id, KEYS, now=NOW)
    except UnauthorizedError:
        return
    assert rest == ["1700000000", "LWjZ5r+BmSIrvPfebGqC4HGPtU78hS6GFEeNMwBbzRI="], "a forged signature"


def provider_of(data: bytes) -> Provider:
    """Returns the provider that the input's first byte selects."""
    return PROVIDERS[PROVIDER_IDS[data[0] % len(PROVIDER_IDS) if data else 0]]


def callback(data: bytes) -> None:
    """Fuzzes the parsing of a callback's body. The input's first byte selects the provider."""
    try:
        provider_of(data).parse_callback(decode_json(data[1:]), received_at=NOW)
    except RequestError as exc:
        str(exc).encode()  # the text is sent in a response and must be encodable


def poll(data: bytes) -> None:
    """Fuzzes the parsing of a poll's response. The input's first byte selects the provider."""
    provider = provider_of(data)
    request = provider.poll_request(["task12345"])
    try:
        body = json.loads(data[1:])
    except (ValueError, RecursionError):
        body = None
    try:
        provider.parse_poll(request, 200, body, received_at=NOW)
    except ProviderError as exc:
        str(exc).encode()


def url(data: bytes) -> None:
    """Fuzzes the URL policy. In an accepted URL, httpx must find the same host as the policy."""
    text = data.decode(errors="surrogateescape")
    try:
        host = url_policy.check_url(text, ["*"])
    except ImageRejectedError as exc:
        str(exc).encode()
        return
    try:
        parsed = httpx.URL(text)
    except httpx.InvalidURL:
        return
    httpx_host = parsed.raw_host.decode("ascii")  # `host` would be decoded from punycode
    assert (parsed.scheme, httpx_host) == ("https", host), f"{httpx_host} or {host}"
    assert parsed.port in (None, HTTPS_PORT), f"port {parsed.port}"


def image(data: bytes) -> None:
    """Fuzzes the reading of an image's format and size."""
    try:
        facts = read_image_metadata(BytesIO(data), len(data))
    except ImageError as exc:
        str(exc).encode()
        return
    assert 0 < facts.width * facts.height <= MAX_PIXELS


# ------------------------------------------------------------------------------------------------ seeds


def bodies(folder: str) -> Iterator[bytes]:
    """Yields the bodies of the events in a folder, each preceded by the byte of its provider."""
    for number, provider in enumerate(PROVIDER_IDS):
        for path in sorted((REPOSITORY / "events" / folder / provider).glob("*.json")):
            event = json.loads(path.read_text(encoding="utf-8"))
            body = event.get("body") if isinstance(event, dict) else event
            if not isinstance(body, str):
                body = json.dumps(body)
            elif event.get("isBase64Encoded"):
                body = base64.b64decode(body).decode()
            yield bytes([number]) + body.encode()


def urls() -> Iterator[bytes]:
    """Returns the URLs of the corpus tests/hostile/urls.toml."""
    corpus = tomllib.loads((REPOSITORY / "tests/hostile/urls.toml").read_text(encoding="utf-8"))
    return (text.encode() for group in corpus["groups"] for text in group.get("urls", []))


def images() -> Iterator[bytes]:
    """Yields small images of each format."""
    from PIL import Image

    for format_name in ("JPEG", "PNG", "GIF", "WEBP", "AVIF"):
        for mode in ("RGB", "L"):
            file = BytesIO()
            Image.linear_gradient("L").resize((9, 7)).convert(mode).save(file, format_name)
            yield file.getvalue()


@dataclass(frozen=True, slots=True)
class Target:
    """A function to fuzz and its seeds."""

    read: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


TARGETS = {
    "token": Target(token, lambda: iter([TOKEN.encode(), TOKEN[:-1].encode(), b""])),
    "signature": Target(
        signature, lambda: iter([b"task12345\n1700000000\nLWjZ5r+BmSIrvPfebGqC4HGPtU78hS6GFEeNMwBbzRI=", b"task12345"])
    ),
    "callback": Target(callback, lambda: bodies("callbacks")),
    "poll": Target(poll, lambda: bodies("polls")),
    "url": Target(url, urls),
    "image": Target(image, images),
}

# ------------------------------------------------------------------------------------------------ fuzzing


def mutate(source: random.Random, seeds: list[bytes]) -> bytes:
    """Returns a seed after one to five random changes: a flipped bit, a deletion, or inserted or replaced bytes."""
    data = bytearray(source.choice(seeds))
    for _ in range(source.randint(1, 5)):
        at, to = sorted(source.randrange(len(data) + 1) for _ in range(2))
        other = source.choice(seeds)
        start = source.randrange(len(other) + 1)
        match source.randrange(4):
            case 0 if data:
                data[source.randrange(len(data))] ^= 1 << source.randrange(8)
            case 1:
                del data[at:to]
            case 2:
                data[at:at] = source.randbytes(source.randint(1, 8))
            case _:
                data[at:to] = other[start : start + source.randint(1, 64)]
    return bytes(data[:MAX_INPUT_BYTES])


def fuzz(name: str, seconds: float) -> bool:
    """Runs a target with random inputs for `seconds`. Stores a failing input, prints its error and returns False."""
    target, source = TARGETS[name], random.Random()  # noqa: S311 - fuzzing
    seeds = list(target.seeds())
    runs, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutate(source, seeds)
        runs += 1
        try:
            target.read(data)
        except BaseException:  # noqa: BLE001 - any error is a finding
            path = FINDINGS / f"{name}-{source.getrandbits(32):08x}"
            path.write_bytes(data)
            print(f"{name}: FAILED after {runs} runs, with the input {path}\n{traceback.format_exc()}", flush=True)
            return False
    print(f"{name}: {runs} runs", flush=True)
    return True


def fuzz_in_parallel(names: list[str], seconds: float) -> bool:
    """Fuzzes each target in its own process, all within `seconds`. Returns whether all succeeded."""
    FINDINGS.mkdir(exist_ok=True)
    workers = os.cpu_count() or 1
    share = max(1.0, seconds / -(-len(names) // workers))
    print(f"{len(names)} targets, {share:.0f} s each", flush=True)
    with ProcessPoolExecutor(workers) as pool:
        return all(list(pool.map(partial(fuzz, seconds=share), names)))


def main() -> int:
    """Runs the given targets, or all, and returns the exit code: 0 if no input failed."""
    parser = argparse.ArgumentParser(prog="python -m scripts.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60, help="duration for all targets together (default: 60)")
    parser.add_argument("--input", type=Path, metavar="FILE", help="run the targets once, with this input")
    arguments = parser.parse_args()
    names = arguments.targets or list(TARGETS)
    if unknown := set(names) - TARGETS.keys():
        parser.error(f"unknown targets: {', '.join(sorted(unknown))}")
    if arguments.input:
        for name in names:
            TARGETS[name].read(arguments.input.read_bytes())
        return 0
    return 0 if fuzz_in_parallel(names, arguments.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
