"""Finds and runs a headless Chromium, if one is installed. scripts/install-chromium installs it."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Command names of Debian and Google. Playwright's own download is not used: it is larger than all other dependencies.
# The headless shell has the same engine without the rest of a browser, and needs less than half of its CPU time.
_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Generous, because a busy machine is slow.
PATIENCE_MILLISECONDS = 60_000
_LOOK_EVERY_MILLISECONDS = 50
ARGUMENTS = ["--disable-background-networking", "--disable-component-update"]
# Pages are drawn by the CPU in any case, which takes longer through an emulated GPU in a process of its own.
ARGUMENTS += ["--disable-gpu", "--in-process-gpu"]
if os.geteuid() == 0:
    ARGUMENTS.append("--no-sandbox")  # Chromium's sandbox does not work for root


def find_chromium() -> str | None:
    """Returns the path of the installed browser, None if there is none."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def chromium(path: str) -> Iterator["Browser"]:
    """Runs the browser until the end of the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS, timeout=PATIENCE_MILLISECONDS)
        try:
            yield browser
        finally:
            browser.close()


def wait_until(page: "Page", expression: str, argument: Any = None) -> None:
    """Waits until a JavaScript expression, or a function of the argument, is true.

    Playwright's `wait_for_function` evaluates the expression inside the page if it is not true at once. The gallery's
    Content Security Policy refuses that.

    Raises:
        TimeoutError: it was not true within PATIENCE_MILLISECONDS.
    """
    deadline = time.monotonic() + PATIENCE_MILLISECONDS / 1000
    while not page.evaluate(expression, argument):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {PATIENCE_MILLISECONDS / 1000:g} s: {expression}")
        page.wait_for_timeout(_LOOK_EVERY_MILLISECONDS)
