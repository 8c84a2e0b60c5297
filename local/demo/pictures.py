"""Writes the demo's two pictures: all archived images in a grid, and a screenshot of the gallery."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from catchlight.client import TasksClient
from catchlight_cli.gallery import GalleryServer
from local.demo.checks import StoredImage
from local.demo.chromium import TIMEOUT_MILLISECONDS, chromium, wait_until

_COLUMNS = 6
_CELL_WIDTH, _CELL_HEIGHT = 300, 290
_IMAGE_SIZE = (276, 236)
_MARGIN = 24
_PAPER, _INK, _FAINT = (20, 22, 28), (232, 232, 236), (138, 142, 154)
_SCREEN_WIDTH, _SCREEN_HEIGHT = 1280, 900
_ALL_IN_VIEW_ARE_LOADED = """() =>
    [...document.querySelectorAll("#grid .card[data-status=ARCHIVED]")]
        .filter((frame) => frame.getBoundingClientRect().top < innerHeight)
        .every((frame) => frame.querySelector("img")?.naturalWidth > 0)
"""
_FADING_IN_MILLISECONDS = 600


def write_image_grid(images: Sequence[StoredImage], path: Path) -> None:
    """Writes a PNG with a thumbnail of every image and, below it, provider, file name and task id."""
    rows = -(-len(images) // _COLUMNS)
    sheet = Image.new("RGB", (2 * _MARGIN + _COLUMNS * _CELL_WIDTH, 2 * _MARGIN + rows * _CELL_HEIGHT), _PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(15), ImageFont.load_default(12)
    for place, image in enumerate(images):
        left = _MARGIN + place % _COLUMNS * _CELL_WIDTH
        top = _MARGIN + place // _COLUMNS * _CELL_HEIGHT
        with Image.open(io.BytesIO(image.content)) as opened:
            thumbnail = opened.convert("RGB")
        thumbnail.thumbnail(_IMAGE_SIZE)
        # Aligned at the bottom, because heights differ.
        sheet.paste(thumbnail, (left, top + _IMAGE_SIZE[1] - thumbnail.height))
        _, provider, task_id, name = image.key.split("/")
        draw.text((left, top + _IMAGE_SIZE[1] + 6), f"{provider}  {name}", _INK, large)
        draw.text((left, top + _IMAGE_SIZE[1] + 26), task_id, _FAINT, small)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def take_screenshot(browser_path: str, api: TasksClient, path: Path) -> int:
    """Opens the gallery in a browser and writes a screenshot as PNG. Returns the number of tasks shown."""
    with GalleryServer(api) as gallery, chromium(browser_path) as browser:
        page = browser.new_page(viewport={"width": _SCREEN_WIDTH, "height": _SCREEN_HEIGHT})
        page.goto(gallery.url)
        page.wait_for_selector("#grid[aria-busy=false]", timeout=TIMEOUT_MILLISECONDS)
        wait_until(page, _ALL_IN_VIEW_ARE_LOADED)
        page.wait_for_timeout(_FADING_IN_MILLISECONDS)
        tasks = page.locator("#grid .card").count()
        page.screenshot(path=path)
    return tasks
