"""A pytest plugin that searches the output of tests and their stacks for canary secrets that must not leak.

It searches everything that Lambda would expose: logs, standard output and error, metrics, and the log files of local
stacks. Loggers of libraries are included from WARNING on, the level of Lambda's root logger; Catchlight's own at any
level. After each test it also searches everything that moto has stored: objects, items, messages, executions and
events. A leaked secret fails the run; the report names the place, not the secret.
"""

import base64
import functools
import importlib
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CANARIES: dict[str, str] = {}  # name by secret


def canary(name: str, secret: str) -> str:
    """Registers a value as a secret that must not appear in any output, and returns it."""
    CANARIES[secret] = name
    return secret


# Secrets that tests send and store. Each is long and a single word, so that it is found in any context.
CALLBACK_TOKEN = canary("callback token", "localCallbackToken0123456789abcdefghijklmnopqrst")
OTHER_TOKEN = canary("refused token", CALLBACK_TOKEN[::-1])
API_KEYS = {
    provider: canary("API key", f"canaryApiKey{number}OfAProvider")
    for number, provider in enumerate(("flux-kontext", "nanobanana", "acedata", "kie-market", "apikley"))
}
WEBHOOK_KEY = canary("webhook key", "canaryWebhookKeyOfAProvider")
URL_QUERY = "sig=" + canary("URL query", "canarySignatureOfAnImageUrl")
# The signature of the documented test vector, which is also in `events/`.
SIGNATURE = canary("webhook signature", "LWjZ5r+BmSIrvPfebGqC4HGPtU78hS6GFEeNMwBbzRI=")
canary("local API key", "local-api-key")

# Stacks generate their own tokens, which are found by pattern.
PATTERNS = {
    "a path with a token": re.compile(r"/callbacks/[a-z-]+/[A-Za-z0-9_-]{32,}"),
    "an Authorization header": re.compile(r"Bearer [A-Za-z0-9]"),
}


@dataclass(frozen=True)
class Leak:
    """A secret and the place where it appeared."""

    name: str
    where: str
    context: str  # with the secret masked

    def __str__(self) -> str:
        return f"{self.name} in {self.where}: {self.context}"


def find_leaks(text: str, where: str, *, levels: int = 0, canaries: Mapping[str, str] = CANARIES) -> Iterator[Leak]:
    """Yields every canary secret in a text once, also if it is encoded up to `levels` times: see `readings`."""
    found = set()
    for reading in readings(text, levels=levels):
        for secret, name in canaries.items():
            if name not in found and (at := reading.find(secret)) >= 0:
                found.add(name)
                yield Leak(name, where, _context(reading, at, at + len(secret)))
        for name, pattern in PATTERNS.items():
            if name not in found and (match := pattern.search(reading)):
                found.add(name)
                yield Leak(name, where, _context(reading, *match.span()))


def _context(text: str, start: int, end: int) -> str:
    found = f"{text[max(0, start - 60) : start]}*****{text[end : end + 20]}"
    for secret in CANARIES:
        found = found.replace(secret, "*****")
    # Workers send their leaks as UTF-8, which has no surrogates.
    return " ".join(found.split()).encode(errors="backslashreplace").decode()


# ------------------------------------------------------------------------------------------------ encodings


def readings(text: str, *, levels: int = 4) -> set[str]:
    """Returns a text and its results after up to `levels` of the decoders below, in any order.

    It does not use the code under test, so that it also finds encodings which that code does not handle.
    """
    found = new = {text}
    for _ in range(levels):
        new = {read(each) for each in new for read in (_unquoted, _unescaped, _without_nulls, _base64)} - found
        found = found | new
    return found


def _unquoted(text: str) -> str:
    """Decodes percent-encoding. Faster than urllib.parse.unquote, which loops over the text in Python."""
    # The pattern begins with a literal "%", because re searches for these fast.
    return re.sub(r"%[0-9a-fA-F]{2}(?:%[0-9a-fA-F]{2})*", _bytes_of, text)


def _bytes_of(quoted: re.Match[str]) -> str:
    return bytes.fromhex(quoted[0].replace("%", "")).decode(errors="replace")


def _unescaped(text: str) -> str:
    return re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", lambda match: chr(int(match[1], 16)) if match[1] else match[2], text)


def _without_nulls(text: str) -> str:
    return text.replace("\0", "")


def _base64(text: str) -> str:
    """Decodes each part of the text that may be base64. Its first characters may belong to the text before it."""
    return "\n".join(map(_decoded, re.findall(r"[A-Za-z0-9+/_-]{11,}", text)))


@functools.lru_cache(10_000)  # many lines contain the same paths and names
def _decoded(part: str) -> str:
    """Decodes a text starting at each of its first four characters, because base64 has groups of four characters."""
    part = part.replace("-", "+").replace("_", "/")
    decoded = []
    for start in range(4):
        whole = part[start:]
        whole = whole[:-1] if len(whole) % 4 == 1 else whole + "=" * (-len(whole) % 4)
        decoded.append(base64.b64decode(whole).decode("latin-1"))
    return "\n".join(decoded)


# ------------------------------------------------------------------------------------------------ stored content

# Image URLs are stored with their signatures. No other canary secret may be stored.
_MAY_BE_STORED = ("URL query",)
# A rejected delivery contains JSON in JSON in base64.
_STORED_LEVELS = 3
_MAX_TEXT_LENGTH = 200_000
_events: list[str] = []
_clean: set[int] = set()


def stored() -> Iterator[tuple[str, str]]:
    """Yields the content of moto's services in this process, each with its place. Secrets Manager is left out."""
    for bucket in _models("s3", "buckets"):
        for name in list(bucket.keys):
            for version in bucket.keys.getlist(name):
                content = getattr(version, "value", b"")  # a delete marker has none
                yield f"object {name}", f"{name} {content.decode('latin-1')} {getattr(version, 'metadata', '')}"
    for table in _models("dynamodb", "tables"):
        for item in list(table.all_items()):
            yield f"item of {table.name}", str(item.to_json())
    for queue in _models("sqs", "queues"):
        for message in list(queue._messages):
            yield f"message of {queue.name}", message.body
    for machine in _models("stepfunctions", "state_machines"):
        for execution in list(machine.executions):
            yield f"execution of {machine.name}", str(execution.execution_input)
    yield from (("event", event) for event in _events)


def _models(service: str, kind: str) -> Iterator[Any]:
    module = sys.modules.get(f"moto.{service}.models")
    if module is None:
        return
    for account in list(getattr(module, f"{service}_backends").values()):
        for backend in list(account.values()):
            models = getattr(backend, kind)
            yield from list(models.values() if isinstance(models, dict) else models)


def find_stored_leaks(contents: Iterable[tuple[str, str]]) -> Iterator[Leak]:
    """Yields the canary secrets in stored content, also encoded ones."""
    canaries = {secret: name for secret, name in CANARIES.items() if name not in _MAY_BE_STORED}
    for where, content in contents:
        if hash(content) in _clean:
            continue
        # Longer content is an image, in which no function encodes secrets.
        levels = _STORED_LEVELS if len(content) < _MAX_TEXT_LENGTH else 0
        leaks = list(find_leaks(content, where, levels=levels, canaries=canaries))
        yield from leaks
        if not leaks:
            _clean.add(hash(content))


def _record_events() -> None:
    """Records the entries of PutEvents, which moto does not store."""
    if "moto.core" not in sys.modules:
        return
    module = importlib.import_module("moto.events.models")
    if hasattr(module.EventsBackend.put_events, "__wrapped__"):
        return
    put_events: Callable[..., Any] = module.EventsBackend.put_events

    @functools.wraps(put_events)
    def recorded(backend: Any, events: list[dict[str, Any]]) -> Any:
        _events.extend(map(str, events))
        return put_events(backend, events)

    module.EventsBackend.put_events = recorded


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    _record_events()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    # Before the teardown of the fixtures, which deletes moto's state.
    _leaks.extend(f"{leak} ({item.nodeid})" for leak in find_stored_leaks(stored()))
    _events.clear()


# ------------------------------------------------------------------------------------------------ searched output


class _Written(logging.Handler):
    """Collects the log records of a test; `pytest_configure` adds the output that the test itself reads."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # The dict contains all fields that a formatter may add to the message, such as Powertools' keys.
        self.texts.append(f"{record.getMessage()} {record.__dict__}")
        if record.exc_info:
            # Cached in the record, as formatters do, because formatting takes milliseconds.
            record.exc_text = record.exc_text or logging.Formatter().formatException(record.exc_info)
            self.texts.append(record.exc_text)


# A body in base64, in a line of JSON.
_LOGGED_LEVELS = 2
_written = _Written()
_clean_lines: set[int] = set()
_leaks: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    logging.getLogger().addHandler(_written)
    read = pytest.CaptureFixture.readouterr

    def readouterr(self: pytest.CaptureFixture[Any]) -> Any:
        # The report of a test does not contain the output that the test has read.
        result = read(self)
        _written.texts.extend(str(part) for part in result)
        return result

    pytest.CaptureFixture.readouterr = readouterr  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.when == "teardown":
        texts = [*_written.texts, *(content for _, content in report.sections)]
        _written.texts.clear()
        _leaks.extend(map(str, _find_written_leaks(texts, item.nodeid)))
    return report  # type: ignore[return-value]


def _find_written_leaks(texts: Iterable[str], where: str) -> list[Leak]:
    """Searches each line once: many tests write the same lines of tracebacks. No secret contains a line break."""
    lines = dict.fromkeys(line for text in texts for line in text.split("\n"))
    new = "\n".join(line for line in lines if hash(line) not in _clean_lines)
    leaks = list(find_leaks(new, where, levels=_LOGGED_LEVELS))
    if not leaks:
        _clean_lines.update(map(hash, lines))
    return leaks


def _search_log_files(folder: Path) -> None:
    for path in sorted(folder.rglob("*.log")):
        if path.is_file() and not path.is_symlink():
            text, where = path.read_text(errors="replace"), str(path.relative_to(folder))
            _leaks.extend(map(str, find_leaks(text, where, levels=_LOGGED_LEVELS)))


# ------------------------------------------------------------------------------------------------ the end of the run


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    factory = getattr(session.config, "_tmp_path_factory", None)
    if factory is not None and factory._basetemp is not None:
        _search_log_files(factory.getbasetemp())
    worker_output = getattr(session.config, "workeroutput", None)
    if worker_output is not None:  # one of xdist's workers
        worker_output["leaks"] = _leaks
    elif _leaks and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    output: dict[str, Any] = getattr(node, "workeroutput", {})
    leaks = output.get("leaks", [f"worker {node.gateway.id} ended without a report of its leaks"])
    _leaks.extend(leak for leak in leaks if leak not in _leaks)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _leaks:
        terminalreporter.section("canary secrets that leaked", red=True)
        for leak in _leaks:
            terminalreporter.line(leak)
