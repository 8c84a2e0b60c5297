"""Finds and runs a headless Chromium, if one is installed. scripts/install-chromium installs it."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Command names in the packages of Debian and Google. Playwright's own download is not used: it is larger than all other
# dependencies. The headless shell has the same engine as the browser, and needs less than half of its CPU time.
_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A generous timeout, for busy machines.
TIMEOUT_MILLISECONDS = 60_000
_CHECK_INTERVAL_MILLISECONDS = 50
ARGUMENTS = ["--disable-background-networking", "--disable-component-update"]
# Without a GPU, Chromium would emulate one in a separate process, which is slower than drawing by the CPU directly.
ARGUMENTS += ["--disable-gpu", "--in-process-gpu"]
if os.geteuid() == 0:
    ARGUMENTS.append("--no-sandbox")  # Chromium's sandbox does not work for root


def find_chromium() -> str | None:
    """Returns the path of the installed browser; None if no browser is installed."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def chromium(path: str) -> Iterator["Browser"]:
    """Runs the browser until the end of the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS, timeout=TIMEOUT_MILLISECONDS)
        try:
            yield browser
        finally:
            browser.close()


def wait_until(page: "Page", expression: str, argument: Any = None) -> None:
    """Waits until a JavaScript expression is true, or a JavaScript function returns true for the argument.

    Not Playwright's `wait_for_function`: if the expression is not true at once, it evaluates it as a string inside the
    page, which the gallery's Content Security Policy forbids.

    Raises:
        TimeoutError: it was not true within TIMEOUT_MILLISECONDS.
    """
    deadline = time.monotonic() + TIMEOUT_MILLISECONDS / 1000
    while not page.evaluate(expression, argument):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {TIMEOUT_MILLISECONDS / 1000:g} s: {expression}")
        page.wait_for_timeout(_CHECK_INTERVAL_MILLISECONDS)
