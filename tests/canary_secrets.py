"""A pytest plugin that searches the output of tests and their stacks for canary secrets that must not leak.

It searches everything that Lambda would expose: logs, standard output and error, metrics, and the log files of local
stacks. Loggers of libraries are included from WARNING on, the level of Lambda's root logger; Catchlight's own at any
level. A leaked secret fails the run; the report names the place, not the secret.
"""

import logging
import re
from collections.abc import Iterator
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
    for number, provider in enumerate(("flux-kontext", "nanobanana", "acedata"))
}
WEBHOOK_KEY = canary("webhook key", "canaryWebhookKeyOfAProvider")
URL_QUERY = "sig=" + canary("URL query", "canarySignatureOfAnImageUrl")
# The signature of the documented test vector, which is also in `events/`.
SIGNATURE = canary("webhook signature", "LWjZ5r+BmSIrvPfebGqC4HGPtU78hS6GFEeNMwBbzRI=")
canary("local API key", "local-api-key")

# Stacks generate their own tokens, which are found by pattern.
SHAPES = {
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


def find_leaks(text: str, where: str) -> Iterator[Leak]:
    """Yields every canary secret in a text once."""
    for secret, name in CANARIES.items():
        if (at := text.find(secret)) >= 0:
            yield Leak(name, where, _context(text, at, at + len(secret)))
    for name, shape in SHAPES.items():
        if match := shape.search(text):
            yield Leak(name, where, _context(text, *match.span()))


def _context(text: str, start: int, end: int) -> str:
    found = f"{text[max(0, start - 60) : start]}*****{text[end : end + 20]}"
    for secret in CANARIES:
        found = found.replace(secret, "*****")
    return " ".join(found.split())


# ------------------------------------------------------------------------------------------------ searched output


class _Written(logging.Handler):
    """Collects everything that a test has written so far, whether the test reads it or not."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # The dict contains the fields that a formatter could add: Powertools passes its keys as extra.
        self.texts.append(f"{record.getMessage()} {record.__dict__}")
        if record.exc_info:
            self.texts.append(logging.Formatter().formatException(record.exc_info))


_written = _Written()
_leaks: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    logging.getLogger().addHandler(_written)
    read = pytest.CaptureFixture.readouterr

    def readouterr(self: pytest.CaptureFixture[Any]) -> Any:
        # Output that a test reads is missing from its report.
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
        _leaks.extend(map(str, find_leaks("\n".join(texts), item.nodeid)))
    return report  # type: ignore[return-value]


def _search_log_files(folder: Path) -> None:
    for path in sorted(folder.rglob("*.log")):
        if path.is_file() and not path.is_symlink():
            _leaks.extend(map(str, find_leaks(path.read_text(errors="replace"), str(path.relative_to(folder)))))


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
    _leaks.extend(leak for leak in getattr(node, "workeroutput", {}).get("leaks", []) if leak not in _leaks)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _leaks:
        terminalreporter.section("canary secrets that leaked", red=True)
        for leak in _leaks:
            terminalreporter.line(leak)
