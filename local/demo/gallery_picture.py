"""Takes a screenshot of the gallery with the demo's tasks."""

from pathlib import Path

from catchlight.client import TasksClient
from catchlight_cli.gallery import GalleryServer
from local.demo.chromium import PATIENCE_MILLISECONDS, chromium

_WIDTH, _HEIGHT = 1280, 900
_ALL_IN_VIEW_ARE_LOADED = """() =>
    [...document.querySelectorAll("#sheet .frame[data-status=ARCHIVED]")]
        .filter((frame) => frame.getBoundingClientRect().top < innerHeight)
        .every((frame) => frame.querySelector("img")?.naturalWidth > 0)
"""
_FADING_IN_MILLISECONDS = 600


def take_picture(browser_path: str, api: TasksClient, path: Path) -> int:
    """Opens the gallery in a browser and writes a screenshot as PNG. Returns the number of tasks shown."""
    with GalleryServer(api) as gallery, chromium(browser_path) as browser:
        page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        page.goto(gallery.url)
        page.wait_for_selector("#sheet[aria-busy=false]", timeout=PATIENCE_MILLISECONDS)
        page.wait_for_function(_ALL_IN_VIEW_ARE_LOADED, timeout=PATIENCE_MILLISECONDS)
        page.wait_for_timeout(_FADING_IN_MILLISECONDS)
        tasks = page.locator("#sheet .frame").count()
        page.screenshot(path=path)
    return tasks
