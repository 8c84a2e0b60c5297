"""A browser without a window, where one is installed. scripts/install-chromium installs it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Debian's and Google's names. Not Playwright's own download, which is larger than everything else together.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A busy machine may take its time.
PATIENCE_MILLISECONDS = 60_000


def find_chromium() -> str | None:
    """Its path, None if there is none here."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def chromium(path: str) -> Iterator["Browser"]:
    """Runs it until the end of the block."""
    from playwright.sync_api import sync_playwright

    arguments = ["--disable-background-networking", "--disable-component-update"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # which Chromium refuses to root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments, timeout=PATIENCE_MILLISECONDS)
        try:
            yield browser
        finally:
            browser.close()
